//! Events over time as a drawing: bars of ok, failed and lost events, and shades where nobody watched.

use whence_store::read::{Bucket, InstanceCoverage, Window};

use crate::query::Query;
use crate::text;

/// Units of the drawing across one bar and over its height.
const BAR_WIDTH: u64 = 100;
const HEIGHT: u64 = 1000;
/// What can just be seen.
const LEAST_HEIGHT: u64 = 18;

/// What the template draws.
pub struct Histogram {
    /// How dark one shade is, in hundredths: the more servers there are, the less one of them counts.
    pub shade_percent: usize,
    pub width: u64,
    pub height: u64,
    pub bars: Vec<Bar>,
    pub shades: Vec<Shade>,
    /// Times below: at the beginning, in the middle and at the end.
    pub marks: Vec<String>,
    /// Most events in one bar.
    pub most: String,
}

pub struct Bar {
    pub x: u64,
    pub width: u64,
    pub parts: Vec<Part>,
    pub title: String,
    /// The same question over this bar only.
    pub href: String,
}

pub struct Part {
    pub class: &'static str,
    pub y: u64,
    pub height: u64,
}

pub struct Shade {
    pub x: u64,
    pub width: u64,
    pub title: String,
}

impl Histogram {
    pub fn new(buckets: &[Bucket], coverage: &[InstanceCoverage], window: Window, query: &Query) -> Self {
        let most = buckets.iter().map(total).max().unwrap_or_default();
        let width = BAR_WIDTH * buckets.len() as u64;
        let bar = |(position, bucket): (u64, &Bucket)| bar(position, bucket, most, query);
        let middle = window.from.plus_ns(window.to.since_ns(window.from) / 2);
        Self {
            width,
            height: HEIGHT,
            bars: (0..).zip(buckets).map(bar).collect(),
            shades: shades(coverage, window, width),
            shade_percent: (100 / coverage.len().max(1)).max(45),
            marks: [window.from, middle, window.to].map(text::second).to_vec(),
            most: text::count(most),
        }
    }
}

fn total(bucket: &Bucket) -> u64 {
    bucket.ok.saturating_add(bucket.error).saturating_add(bucket.gap)
}

fn bar(position: u64, bucket: &Bucket, most: u64, query: &Query) -> Bar {
    let mut y = HEIGHT;
    let mut parts = Vec::new();
    for (class, events) in [("ok", bucket.ok), ("error", bucket.error), ("gap", bucket.gap)] {
        if events == 0 {
            continue;
        }
        let height = scale(events, HEIGHT, most).max(LEAST_HEIGHT).min(y);
        y -= height;
        parts.push(Part { class, y, height });
    }
    let title = format!(
        "{} to {} UTC: {} ok, {} failed, {} lost",
        text::second(bucket.from),
        text::second(bucket.to),
        text::count(bucket.ok),
        text::count(bucket.error),
        text::count(bucket.gap)
    );
    let window = Window { from: bucket.from, to: bucket.to };
    let href = format!("/history?{}", query.over(window));
    Bar { x: position * BAR_WIDTH, width: BAR_WIDTH, parts, title, href }
}

fn shades(coverage: &[InstanceCoverage], window: Window, width: u64) -> Vec<Shade> {
    /// More cannot be told apart.
    const MOST: usize = 200;

    let length = positive(window.to.since_ns(window.from));
    let spans = coverage.iter().flat_map(|server| server.unwatched.iter().map(move |span| (server, span)));
    let shade = |(server, span): (&InstanceCoverage, &whence_store::read::Span)| {
        let x = scale(positive(span.from.since_ns(window.from)), width, length);
        let end = scale(positive(span.to.since_ns(window.from)), width, length);
        let title = format!(
            "{} was not watched from {} to {} UTC",
            crate::statement::label(server),
            text::second(span.from),
            text::second(span.to)
        );
        Shade { x, width: end.saturating_sub(x).max(BAR_WIDTH / 10), title }
    };
    spans.map(shade).take(MOST).collect()
}

fn positive(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or_default()
}

/// `part` of `whole`, of `of` units.
pub fn scale(part: u64, of: u64, whole: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(of).min(of)
}

#[cfg(test)]
mod tests {
    use whence_model::Timestamp;

    use super::*;

    #[test]
    fn every_kind_of_event_can_be_seen_and_the_highest_bar_fits() {
        let window = Window { from: Timestamp(0), to: Timestamp(20) };
        let bucket =
            |from, ok, error, gap| Bucket { from: Timestamp(from), to: Timestamp(from + 10), ok, error, gap };
        let buckets = [bucket(0, u64::MAX / 2, 1, 1), bucket(10, 0, 0, 0)];
        let drawing = Histogram::new(&buckets, &[], window, &Query::default());
        assert_eq!(drawing.width, 200);
        let bar = &drawing.bars[0];
        assert!(bar.parts.iter().all(|part| part.y + part.height <= HEIGHT));
        assert_eq!(bar.parts[0].class, "ok");
        assert!(drawing.bars[1].parts.is_empty());
        assert!(bar.href.contains("from=1970-01-01T00%3A00%3A00.000000000Z"));
    }
}

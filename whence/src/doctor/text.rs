//! The report for a person at a terminal. Names in it come from strangers.

use std::fmt::Write as _;

use whence_collector::doctor::{Check, Report, Server, State};

use crate::terminal::printable;

pub fn of(report: &Report) -> String {
    let mut text = String::new();
    section(&mut text, "this host", &report.host);
    heading(&mut text, "database servers");
    for server in &report.servers {
        of_server(&mut text, server);
    }
    if report.servers.is_empty() {
        line(&mut text, State::Note, "none runs here; one that starts is captured within a second");
    }
    section(&mut text, "collector", &report.collector.checks);
    let verdict = if report.is_well() { "all is well" } else { "not all is well: see the lines marked BAD" };
    let _ = writeln!(text, "\n{verdict}");
    text
}

fn heading(text: &mut String, title: &str) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{title}");
}

fn section(text: &mut String, title: &str, checks: &[Check]) {
    heading(text, title);
    for check in checks {
        line(text, check.state, &format!("{}: {}", check.subject, check.detail));
    }
}

fn line(text: &mut String, state: State, what: &str) {
    let mark = match state {
        State::Good => "ok  ",
        State::Note => "note",
        State::Bad => "BAD ",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {mark}  {}", printable(what));
}

fn of_server(text: &mut String, server: &Server) {
    let mut title = server.product.clone();
    if let Some(version) = &server.version {
        let _ = write!(title, " {version}");
    }
    if let Some(address) = &server.address {
        let _ = write!(title, " on {address}");
    }
    let _ = write!(title, " (pid {}, {}", server.process_id, server.program.display());
    if let Some(container) = &server.container {
        let _ = write!(title, ", container {}", &container[..container.len().min(12)]);
    }
    title.push(')');
    line(text, if server.is_well() { State::Good } else { State::Bad }, &title);

    let mut detail = |what: String| {
        let _ = writeln!(text, "        {}", printable(&what));
    };
    match (server.watched_by, &server.refused) {
        (_, Some(reason)) => {
            detail(format!("cannot be watched: {reason}"));
            if let Some(build) = &server.build {
                detail(format!(
                    "a table of offsets would know it as {build}: whence doctor --learn BINARY --debug-file FILE"
                ));
            }
        }
        (Some(by), None) => detail(format!("would be watched by its {by}{}", sources(server))),
        (None, None) => {}
    }
    if !server.null_fields.is_empty() {
        detail(format!("its events do not have: {}", server.null_fields.join(", ")));
    }
    if let Some(status) = &server.collector_says {
        detail(format!("the collector says: {}: {}", status.state, status.detail));
    }
    if server.pinned_probes > 0 {
        detail(format!("{} probes are pinned on its program", server.pinned_probes));
    }
}

/// Where its offsets are from: the source of most, and what is from another.
fn sources(server: &Server) -> String {
    let Some(first) = server.offsets.first() else { return String::new() };
    let others = server.offsets.iter().filter(|offset| offset.source != first.source);
    let others: Vec<_> = others.map(|offset| offset.field).collect();
    let added = if others.is_empty() {
        String::new()
    } else {
        format!(", but from the table of offsets: {}", others.join(", "))
    };
    format!(", with offsets from {}{added}", first.source)
}

#[cfg(test)]
mod tests {
    use whence_collector::doctor::Collector;

    use super::*;

    #[test]
    fn hostile_names_do_not_steer_the_terminal() {
        let server = Server {
            process_id: 7,
            product: "MariaDB".into(),
            version: Some("10.11.19\u{1b}]0;owned\u{7}".into()),
            program: "/tmp/\u{1b}[2J\u{202e}/mariadbd\n  ok    all".into(),
            container: Some("0".repeat(64)),
            address: None,
            watched_by: None,
            refused: Some("no\r".into()),
            build: None,
            offsets: Vec::new(),
            null_fields: Vec::new(),
            collector_says: None,
            pinned_probes: 0,
        };
        let collector = Collector {
            process_id: None,
            checks: Vec::new(),
            status: None,
            spool_bytes: None,
            quarantined_batches: None,
        };
        let text = of(&Report { host: Vec::new(), servers: vec![server], collector });
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
        assert!(text.contains("  BAD   MariaDB 10.11.19\\u{1b}]0;owned\\u{7} (pid 7, /tmp/"), "{text}");
        assert!(text.contains("mariadbd\\n  ok    all, container 000000000000)"), "{text}");
        assert!(text.ends_with("not all is well: see the lines marked BAD\n"), "{text}");
    }
}

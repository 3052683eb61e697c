//! What is asked, as it stands in the URL. The pages, the API and the exports share its names.
//!
//! In flows the query string; out flows a [`Search`] for the store, or a list of what was wrong with it.

mod search;
mod time;

pub use search::{FILTER_NAMES, Search};
pub use time::WINDOW_PRESETS;

use url::form_urlencoded;
use whence_model::Timestamp;
use whence_store::read::Window;

/// The most characters of one value.
const MAX_VALUE_CHARS: usize = 1000;
/// The most values in one query.
const MAX_VALUES: usize = 100;

/// Something a person asked for that cannot be, with what could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    pub field: String,
    pub message: String,
}

impl FieldProblem {
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The names and values of a query string, in their order. An empty value is as good as none: forms send those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(raw.unwrap_or_default().as_bytes());
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        Self { pairs: pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect() }
    }

    /// The values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value of `name`, or nothing.
    pub fn first(&self, name: &str) -> &str {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The same without these names.
    pub fn without(&self, names: &[&str]) -> Self {
        let pairs = self.pairs.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        Self { pairs: pairs.cloned().collect() }
    }

    /// The same with `name` set to `value` only.
    pub fn with(&self, name: &str, value: impl Into<String>) -> Self {
        let mut query = self.without(&[name]);
        query.pairs.push((name.into(), value.into()));
        query
    }

    /// The same over exactly this window.
    pub fn over(&self, window: Window) -> Self {
        self.without(&["cursor"]).with("from", window.from.to_string()).with("to", window.to.to_string())
    }

    /// Names that are not among `known`, and values that are too many or too long.
    pub fn check(&self, known: &[&str]) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        if self.pairs.len() > MAX_VALUES {
            problems
                .push(FieldProblem::new("query", format!("has more than {MAX_VALUES} values; give fewer")));
        }
        for (name, value) in &self.pairs {
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(64).collect();
                let message = format!("is not known; known are {}", known.join(", "));
                problems.push(FieldProblem::new(&name, message));
            } else if value.chars().nth(MAX_VALUE_CHARS).is_some() {
                problems.push(FieldProblem::new(name, format!("has more than {MAX_VALUE_CHARS} characters")));
            }
        }
        problems.truncate(10);
        problems
    }

    /// The window that `from` and `to` mean: the last day when neither is given.
    pub fn window(&self, now: Timestamp) -> Result<Window, Vec<FieldProblem>> {
        time::window(self, now)
    }

    /// The one value of `name`; a problem when there are several.
    fn only(&self, name: &str, problems: &mut Vec<FieldProblem>) -> Option<&str> {
        let mut values =
            self.pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            problems.push(FieldProblem::new(name, "is given more than once; give it once"));
        }
        value
    }
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.pairs).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_comes_back_from_its_text() {
        let raw = "user=a%26b&user=%3Cscript%3E&text=&from=-1h";
        let query = Query::parse(Some(raw));
        assert_eq!(query.all("user").collect::<Vec<_>>(), ["a&b", "<script>"]);
        assert_eq!(query.first("text"), "");
        assert_eq!(query.to_string(), "user=a%26b&user=%3Cscript%3E&from=-1h");
        assert_eq!(query.with("user", "c").to_string(), "from=-1h&user=c");
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let problems = Query::parse(Some("usr=a&user=b")).check(&["user", "from"]);
        assert_eq!(problems, [FieldProblem::new("usr", "is not known; known are user, from")]);
    }
}

//! Access history: the form, and what was found.

use askama::Template;

use super::{FilterForm, Results, Shell};

#[derive(Template)]
#[template(path = "history.html")]
pub struct HistoryPage {
    pub shell: Shell,
    pub form: FilterForm,
    /// None when the query could not be asked.
    pub results: Option<Results>,
    /// Where the live view gets the results alone; none where they do not change.
    pub live: Option<String>,
}

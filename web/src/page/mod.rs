//! One struct per page: what its template shows, already in words. Templates only arrange it.

mod coverage;
mod event;
mod filter_form;
mod histogram;
mod history;
mod people;
mod reads;
mod report;
mod results;

pub use coverage::{CoveragePage, Found as CoverageFound};
pub use event::EventPage;
pub use filter_form::FilterForm;
pub use history::HistoryPage;
pub use people::PeoplePage;
pub use reads::ReadsPage;
pub use report::{Maker, Report, ReportPage};
pub use results::{Found, Results, ResultsPage};

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use uuid::Uuid;
use whence_model::Timestamp;

use crate::collectors;
use crate::handlers::assets;
use crate::people::Role;
use crate::problem::Problem;
use crate::statement::Statement;
use crate::visitor::Visitor;

/// Makes pages answers.
macro_rules! answers {
    ($($page:ident),+) => {$(
        impl IntoResponse for $page {
            fn into_response(self) -> Response {
                match self.render() {
                    Ok(html) => Html(html).into_response(),
                    Err(error) => Problem::from(error).into_response(),
                }
            }
        }
    )+};
}

answers!(
    SignInPage,
    ProblemPage,
    HistoryPage,
    ResultsPage,
    EventPage,
    ReportPage,
    CoveragePage,
    PeoplePage,
    ReadsPage
);

/// What surrounds every page.
pub struct Shell {
    pub title: String,
    /// Name of the navigation's entry that this page is part of.
    pub active: &'static str,
    /// Who is signed in.
    pub person: Option<Person>,
    pub style: String,
    pub script: String,
    pub icon: String,
    /// What everyone must know who looks at this page.
    pub notices: Vec<String>,
}

pub struct Person {
    pub name: String,
    pub role: &'static str,
    pub may_report: bool,
    pub may_see_people: bool,
}

impl Shell {
    pub fn new(title: &str, active: &'static str, visitor: &Visitor) -> Self {
        let person = Person {
            name: visitor.asker.person.clone(),
            role: visitor.role.as_str(),
            may_report: visitor.role >= Role::Auditor,
            may_see_people: visitor.role >= Role::Admin,
        };
        Self { active, person: Some(person), ..Self::bare(title) }
    }

    fn bare(title: &str) -> Self {
        Self {
            title: title.into(),
            active: "",
            person: None,
            style: assets::url("style.css"),
            script: assets::url("app.js"),
            icon: assets::url("icon.svg"),
            notices: Vec::new(),
        }
    }

    /// The same with what is to be said of collectors that are silent.
    pub async fn with_silence(self, visitor: &Visitor) -> Result<Self, Problem> {
        let notices = collectors::silence(&visitor.web.heard().await?, Timestamp::now());
        Ok(Self { notices, ..self })
    }
}

/// One choice of a list.
pub struct Choice {
    pub value: String,
    pub label: String,
    pub chosen: bool,
}

/// A link with its text.
pub struct Link {
    pub href: String,
    pub label: String,
    pub current: bool,
}

/// A statement on coverage with a link to the details.
pub struct CoverageLine {
    pub statement: Statement,
    pub href: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
pub struct SignInPage {
    shell: Shell,
    next: String,
    name: String,
    problem: Option<String>,
}

impl SignInPage {
    pub fn new(next: &str, name: &str, problem: Option<String>) -> Self {
        Self { shell: Shell::bare("Sign in"), next: next.into(), name: name.into(), problem }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
pub struct ProblemPage {
    shell: Shell,
    message: String,
    status: u16,
    request_id: Uuid,
}

impl ProblemPage {
    pub fn new(title: &str, message: &str, status: u16, request_id: Uuid) -> Self {
        let mut characters = message.chars();
        let first: String = characters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
        let message = format!("{first}{}.", characters.as_str());
        Self { shell: Shell::bare(title), message, status, request_id }
    }
}

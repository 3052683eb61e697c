//! Who has an account.

use crate::audit::Action;
use crate::page::{PeoplePage, Shell};
use crate::people::Role;
use crate::problem::Problem;
use crate::visitor::Visitor;

pub async fn page(visitor: Visitor) -> Result<PeoplePage, Problem> {
    visitor.require(Role::Admin, Action::People, "").await?;
    let store = &visitor.web.store;
    let work = async {
        let (people, tokens) = tokio::try_join!(store.people(), store.api_tokens())?;
        let rows = people.len() as u64;
        Ok(((people, tokens), rows))
    };
    let (people, tokens) = visitor.read(Action::People, "", work).await?;
    Ok(PeoplePage::new(Shell::new("People", "people", &visitor), &people, &tokens))
}

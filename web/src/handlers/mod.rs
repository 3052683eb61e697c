//! One module per part of the service: each asks the store what the URL asks, and gives it to its page.

pub mod api;
pub mod assets;
pub mod coverage;
pub mod event;
pub mod export;
pub mod health;
pub mod history;
pub mod people;
pub mod reads;
pub mod report;
pub mod sign_in;

//! Logins of DC/OS service accounts.

mod account;
mod session;

pub(super) use self::{account::Account, session::Session};

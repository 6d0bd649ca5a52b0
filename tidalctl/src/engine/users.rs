//! Users as people write them: numbers, or texts that lie in the dictionary.

use tidaldb::schema::EntityId;

use super::Engine;
use crate::failure::Failure;
use crate::ingest::{TEXT_USER_BIT, USER_PREFIX, user_number, user_text};

impl Engine {
    /// The number of a user, by the rule of `tidalctl ingest`.
    ///
    /// # Errors
    ///
    /// When the user is a text that the database does not have.
    pub(crate) fn user_of(&self, name: &str) -> Result<u64, Failure> {
        if let Some(number) = user_number(name) {
            return Ok(number);
        }
        let text = self.lookup(&user_text(name)).map(|number| number | TEXT_USER_BIT);
        // A user that another program numbered so, whatever ingest would make of it.
        let number = || name.parse::<u64>().ok().filter(|number| number & TEXT_USER_BIT != 0);
        text.or_else(number).ok_or_else(|| {
            Failure::failed(format!("the database has no user {name:?}"))
                .hint("a user is a number, or a text that tidalctl ingest read")
        })
    }

    /// A user's text, if the user has one.
    pub(crate) fn user_text(&self, user: u64) -> Option<String> {
        let number = user.checked_sub(TEXT_USER_BIT)?;
        self.entity_name(number)?.strip_prefix(USER_PREFIX).map(str::to_owned)
    }

    /// A user's text, else the number.
    pub(crate) fn user_name(&self, user: u64) -> String {
        self.user_text(user).unwrap_or_else(|| user.to_string())
    }

    /// The text of an item, if it has one.
    pub(crate) fn entity_name(&self, entity: u64) -> Option<String> {
        self.db.entity_text(EntityId::new(entity))
    }
}

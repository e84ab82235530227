//! Which sessions, in which order: filters, queries, pages.

use std::{fmt, ops::Bound, ops::RangeBounds, str::FromStr};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::{Serial, SessionId},
    record::Summary,
};

/// The largest page, in sessions: a page is held in memory whole.
pub const PAGE_LIMIT_MAX: usize = 1_000;
/// The page size where none is named.
pub const PAGE_LIMIT: usize = 100;

/// Conditions of a filter that may be repeated: each is a term of the SQL, whose depth SQLite bounds.
pub const FILTER_CONDITIONS_MAX: usize = 100;

/// A half-open range of unix microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first moment in it.
    pub from: i64,
    /// The first moment past it.
    pub until: i64,
}

impl Span {
    fn of(range: impl RangeBounds<Timestamp>) -> Self {
        Self {
            from: match range.start_bound() {
                Bound::Included(at) => at.as_micros(),
                Bound::Excluded(at) => at.as_micros().saturating_add(1),
                Bound::Unbounded => i64::MIN,
            },
            until: match range.end_bound() {
                Bound::Included(at) => at.as_micros().saturating_add(1),
                Bound::Excluded(at) => at.as_micros(),
                Bound::Unbounded => i64::MAX,
            },
        }
    }
}

/// Whether a filter is for sessions that are alive or for those that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Liveness {
    /// Alive.
    #[default]
    Alive,
    /// Over and not yet swept away.
    Over,
}

/// Which sessions. All conditions must hold; expired sessions never match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub(crate) liveness: Liveness,
    pub(crate) user: Option<String>,
    pub(crate) id_prefix: Option<String>,
    pub(crate) serial: Option<Serial>,
    pub(crate) except: Vec<SessionId>,
    pub(crate) created: Option<Span>,
    pub(crate) active: Option<Span>,
    pub(crate) metadata: Vec<(String, String)>,
}

impl Filter {
    /// Matches every session.
    pub fn all() -> Self {
        Self::default()
    }

    /// Matches the expired sessions that a sweep is to delete.
    #[doc(hidden)]
    pub fn over() -> Self {
        Self { liveness: Liveness::Over, ..Self::default() }
    }

    /// Matches sessions of this owner.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Matches ids that begin so.
    #[must_use]
    pub fn id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.id_prefix = Some(prefix.into());
        self
    }

    /// Matches the session of this public name.
    #[must_use]
    pub fn serial(mut self, serial: Serial) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Checks the number of conditions.
    #[doc(hidden)]
    pub fn check(&self) -> Result<()> {
        if self.except.len() + self.metadata.len() > FILTER_CONDITIONS_MAX {
            return Err(Error::InvalidQuery { reason: "the filter has over 100 conditions" });
        }
        Ok(())
    }

    /// Leaves out one session: "end all my other sessions". May be called again.
    #[must_use]
    pub fn except(mut self, id: &SessionId) -> Self {
        self.except.push(id.clone());
        self
    }

    /// Matches sessions created in the range.
    #[must_use]
    pub fn created(mut self, range: impl RangeBounds<Timestamp>) -> Self {
        self.created = Some(Span::of(range));
        self
    }

    /// Matches sessions last active in the range.
    #[must_use]
    pub fn active(mut self, range: impl RangeBounds<Timestamp>) -> Self {
        self.active = Some(Span::of(range));
        self
    }

    /// Matches sessions whose metadata has this entry. May be called again.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, equals: impl Into<String>) -> Self {
        self.metadata.push((key.into(), equals.into()));
        self
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// As created, the first first.
    Oldest,
    /// As created, the last first.
    #[default]
    Newest,
    /// The last active first. A session that becomes active between two pages may appear on none or on both.
    RecentlyActive,
}

/// A list to ask for.
#[derive(Debug, Clone)]
pub struct Query {
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    pub(crate) after: Option<Cursor>,
}

impl Query {
    /// Asks for the newest 100 that match.
    pub fn new(filter: Filter) -> Self {
        Self { filter, order: Order::default(), limit: PAGE_LIMIT, after: None }
    }

    /// Sets the order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the size of the page, 1 to 1,000 sessions.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Checks the bounds.
    #[doc(hidden)]
    pub fn check(&self) -> Result<()> {
        self.filter.check()?;
        if self.limit == 0 {
            Err(Error::InvalidQuery { reason: "the limit is zero" })
        } else if self.limit > PAGE_LIMIT_MAX {
            Err(Error::InvalidQuery { reason: "the limit is over 1,000" })
        } else if self.after.is_some_and(|cursor| cursor.order != self.order) {
            Err(Error::InvalidQuery { reason: "the cursor is of another order" })
        } else {
            Ok(())
        }
    }
}

/// Where a page ended. Can be written and read back as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) order: Order,
    pub(crate) key: i64,
    pub(crate) serial: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Oldest => 'o',
            Order::Newest => 'n',
            Order::RecentlyActive => 'a',
        };
        write!(formatter, "{order}.{}.{}", self.key, self.serial)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let mut parts = text.split('.');
            let order = match parts.next()? {
                "o" => Order::Oldest,
                "n" => Order::Newest,
                "a" => Order::RecentlyActive,
                _ => return None,
            };
            let (key, serial) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts.next().is_none().then_some(Self { order, key, serial })
        };
        parse().ok_or(Error::InvalidQuery { reason: "that is no cursor" })
    }
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The sessions.
    pub items: Vec<Summary>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Cursor>,
}

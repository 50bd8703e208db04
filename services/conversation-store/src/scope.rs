//! Whose data a statement may touch. Every statement takes [`Params`], and those come from a [`Scope`], which binds the
//! principal as `$1` (tenant) and `$2` (user), from [`Params::of_the_mesh`], for the few that serve no principal, or from
//! [`Params::of_nobody`], for tables where no principal has anything.
//!
//! A statement runs on behalf of whom its parameters say. PostgreSQL is told so, and shows it no other rows
//! ([`isolation`](crate::database)). The contract tests hold every call against it; nothing else in the crate builds parameters.

use proto::v1::Principal;

/// A principal, as the rows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    tenant: String,
    user: String,
}

/// A value that a statement binds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Int(i64),
    /// Bytes.
    Blob(&'a [u8]),
}

/// On whose behalf a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    /// Of this principal, whose rows it sees.
    Principal(&'a Scope),
    /// Of the mesh: it sees every row.
    Mesh,
    /// Of nobody: it sees no row that is anybody's.
    Nobody,
}

/// What a statement binds, from `$1` on.
#[derive(Debug)]
pub(crate) struct Params<'a> {
    whose: Whose<'a>,
    values: Vec<Value<'a>>,
}

impl Scope {
    /// The principal's scope. Nobody is the anonymous principal of the default tenant. Whether the names are well formed is
    /// [`check`](crate::check)'s business.
    pub(crate) fn of(principal: Option<&Principal>) -> Self {
        let principal = principal.cloned().unwrap_or_default();
        Self {
            tenant: principal.tenant,
            user: principal.user_id,
        }
    }

    /// Its user.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Its tenant.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The principal as `$1` and `$2`, then `rest` from `$3` on.
    pub(crate) fn params<'a, const N: usize>(&'a self, rest: [Value<'a>; N]) -> Params<'a> {
        let mut values = Vec::with_capacity(2 + N);
        values.push(Value::Text(&self.tenant));
        values.push(Value::Text(&self.user));
        values.extend(rest);
        Params {
            whose: Whose::Principal(self),
            values,
        }
    }
}

impl<'a> Params<'a> {
    /// For statements that serve the mesh and no principal: keys, orphans, retention, an operator's lists, and batches, whose rows name
    /// their principals.
    pub(crate) fn of_the_mesh<const N: usize>(values: [Value<'a>; N]) -> Self {
        Self {
            whose: Whose::Mesh,
            values: values.to_vec(),
        }
    }

    /// For statements on tables that hold nothing of any principal's: claims, and tickets that were taken.
    pub(crate) fn of_nobody<const N: usize>(values: [Value<'a>; N]) -> Self {
        Self {
            whose: Whose::Nobody,
            values: values.to_vec(),
        }
    }

    /// On whose behalf.
    pub(crate) fn whose(&self) -> Whose<'a> {
        self.whose
    }

    /// Them, in order.
    pub(crate) fn values(&self) -> &[Value<'a>] {
        &self.values
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

//! Rows under columns, whatever they are written as.
//!
//! Knows: kinds of values. Must not know: formats.

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What is in a column; any cell may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number that names something: exact, up to 2^64.
    Id,
    /// Nanoseconds since 1970.
    Time,
    /// How many.
    Count,
    /// A score or a weight.
    Real,
    /// Text.
    Text,
    /// Yes or no.
    Flag,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// There is none.
    Null,
    /// Of an [`Id`](Kind::Id), [`Time`](Kind::Time) or [`Count`](Kind::Count).
    Number(u64),
    /// Of a [`Real`](Kind::Real).
    Real(f64),
    /// Of a [`Text`](Kind::Text).
    Text(String),
    /// Of a [`Flag`](Kind::Flag).
    Flag(bool),
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<f64> for Cell {
    fn from(real: f64) -> Self {
        Self::Real(real)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

//! VMFiles as written: nodes, values and where they stand. What a later stage puts in the place of a value keeps the
//! place where it is asked for.

use std::sync::Arc;

use miette::SourceSpan;

/// A value and where it stands. Offsets count through all files of a run; [`super::sources`] knows which is which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the sources.
    pub span: SourceSpan,
}

/// A node with all that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Spanned<String>,
    /// Type annotation in front of its name; no node takes one.
    pub annotation: Option<Spanned<String>>,
    /// Its arguments, in order.
    pub args: Vec<Value>,
    /// Its properties, in order.
    pub props: Vec<(Spanned<String>, Value)>,
    /// The nodes of its block; `None` without a block.
    pub children: Option<Vec<Self>>,
    /// Nothing was left out of it because it does not fit the grammar. Where something was, what is missing is not
    /// worth telling.
    pub sound: bool,
}

/// An argument or the value of a property.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What it says.
    pub scalar: Scalar,
    /// Where it says so.
    pub span: SourceSpan,
    /// Type annotation such as the `(var)` of `(var)"size"`.
    pub annotation: Option<Spanned<String>>,
    /// Where it was taken from, if it is not what stands at its place.
    pub origin: Option<Arc<Origin>>,
}

/// Where a value was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What it was taken from, for messages: "the variable `size`".
    pub what: String,
    /// Where that is written, if it is.
    pub span: Option<SourceSpan>,
    /// It is a text only because texts are all that its origin can give, so that it may stand for a number as well.
    pub is_loose: bool,
}

/// What a value can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A text, quoted or not.
    Text(String),
    /// A whole number in any notation.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// `#true` or `#false`.
    Bool(bool),
    /// `#null`.
    Null,
}

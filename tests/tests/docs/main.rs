//! The documentation is whole: its links lead somewhere, the book has all of it, and its command lines do what is said.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod book;
mod ci;
mod commands;
mod links;

//! Reports: a plan as one file that is read elsewhere, in a browser or beside a pull request.
//!
//! A [`Report`] is plain text and numbers, made from a plan by whoever knows plans. The printers are pure and escape
//! everything: names, messages and differences may hold what guests and files say.

mod html;
mod markdown;
mod model;
mod of;

#[cfg(test)]
mod sample;

pub(crate) use html::{STYLE, html, policy};
pub(crate) use markdown::{code, markdown, plain, verbatim};
pub(crate) use model::{
    Report, ReportChange, ReportCheck, ReportCount, ReportDiff, ReportField, ReportInput,
};
pub(crate) use of::of;

//! noop backend.

/// NoopBackend.
#[derive(Debug)]
pub struct NoopBackend;

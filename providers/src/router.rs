//! router backend.

/// RouterHypervisor.
#[derive(Debug)]
pub struct RouterHypervisor;

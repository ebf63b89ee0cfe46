//! The check that all crash tests rest on finds a leak of each kind.

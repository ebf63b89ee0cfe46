//! The list of places is complete, and so are the scenarios that pass them.

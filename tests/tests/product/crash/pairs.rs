//! Recovery itself is killed (F8): every pair of places within a kind of step, and a sample of all others.

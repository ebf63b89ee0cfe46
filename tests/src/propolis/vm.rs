//! The VM that is none: its states by generation, and its console.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use serde_json::{Value, json};

use super::http::Answer;

/// What there is of a VM.
#[derive(Debug)]
pub(super) struct Inside {
    /// The request that made it.
    pub(super) told: Value,
    /// All states that it was in; the first has the generation 1.
    states: Vec<String>,
}

impl Inside {
    pub(super) fn state(&self) -> &str {
        self.states.last().map_or("", String::as_str)
    }

    pub(super) fn properties(&self) -> &Value {
        &self.told["properties"]
    }

    /// The answer to a question for its spec; at version 1.0.0 it has its own version around it.
    pub(super) fn spec(&self, first: bool) -> Value {
        let spec = &self.told["init"]["value"]["spec"];
        let value = if first { json!({"version": "V0", "spec": spec}) } else { spec.clone() };
        json!({"properties": self.properties(), "state": self.state(), "spec": {"type": "Present", "value": value}})
    }

    fn generation(&self) -> u64 {
        self.states.len() as u64
    }

    fn is_over(&self) -> bool {
        self.state() == "Destroyed"
    }
}

/// A place for one VM.
#[derive(Debug, Default)]
pub(super) struct Vm {
    inside: Mutex<Option<Inside>>,
    changed: Condvar,
}

impl Vm {
    pub(super) fn look<T>(&self, look: impl FnOnce(&Option<Inside>) -> T) -> T {
        look(&self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a VM, if there is none or none any more.
    pub(super) fn make(&self, told: Value) -> bool {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.as_ref().is_some_and(|vm| !vm.is_over()) {
            return false;
        }
        *inside = Some(Inside { told, states: vec!["Creating".to_owned()] });
        self.changed.notify_all();
        true
    }

    pub(super) fn clear(&self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_all();
    }

    pub(super) fn advance(&self, state: &str) {
        if let Some(vm) = &mut *self.inside.lock().unwrap_or_else(PoisonError::into_inner) {
            vm.states.push(state.to_owned());
        }
        self.changed.notify_all();
    }

    /// Waits for a generation, and answers with the latest state.
    pub(super) fn monitor(&self, generation: u64) -> Answer {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*inside {
                None => return Answer::error(424, Some("NoInstance"), "server has no instance"),
                Some(vm) if generation <= vm.generation() => {
                    let migration = json!({"migration_in": null, "migration_out": null});
                    let answer = json!({"gen": vm.generation(), "state": vm.state(), "migration": migration});
                    return Answer::json(200, &answer);
                }
                Some(vm) if vm.is_over() => {
                    return Answer::error(410, None, "no such generation will ever come");
                }
                Some(_) => inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// What a guest printed, and what was typed.
#[derive(Debug, Default)]
pub(super) struct Console {
    printed: Mutex<Vec<u8>>,
    typed: Mutex<Vec<u8>>,
    half: usize,
}

impl Console {
    pub(super) fn new(half: Option<usize>) -> Self {
        Self { half: half.unwrap_or(1 << 20), ..Self::default() }
    }

    fn all<T>(&self, look: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        look(&mut self.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn clear(&self) {
        self.all(Vec::clear);
    }

    pub(super) fn print(&self, bytes: &[u8]) {
        self.all(|printed| printed.extend_from_slice(bytes));
    }

    pub(super) fn type_in(&self, bytes: &[u8]) {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    pub(super) fn typed(&self) -> Vec<u8> {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn since(&self, place: usize) -> Vec<u8> {
        self.all(|printed| printed.get(place..).unwrap_or_default().to_vec())
    }

    /// Where a WebSocket begins: at the end, unless exactly one place is asked for.
    pub(super) fn place(&self, query: &BTreeMap<String, String>) -> usize {
        let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok());
        self.all(|printed| match (number("from_start"), number("most_recent")) {
            (Some(from), None) => from.min(printed.len()),
            (None, Some(recent)) => printed.len().saturating_sub(recent),
            _ => printed.len(),
        })
    }

    /// The history as it is kept: the beginning and the end of what was printed.
    pub(super) fn history(&self, query: &BTreeMap<String, String>) -> Answer {
        let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok());
        let most = number("max_bytes").unwrap_or(16 << 10);
        self.all(|printed| {
            let length = printed.len();
            let from = match (number("from_start"), number("most_recent")) {
                (Some(from), None) => from,
                (None, Some(recent)) => length.saturating_sub(recent.min(self.half)),
                _ => return Answer::error(400, None, "exactly one of from_start and most_recent is needed"),
            };
            let (gap, gap_end) = (self.half, length.saturating_sub(self.half));
            let in_gap = gap < gap_end && from >= gap && from < gap_end;
            if from > length || in_gap {
                return Answer::error(400, None, "requested byte offset is not in the history");
            }
            let limit = if from < gap && gap < gap_end { gap } else { length };
            let end = from.saturating_add(most).min(limit);
            Answer::json(200, &json!({"data": printed[from..end], "last_byte_offset": end}))
        })
    }
}

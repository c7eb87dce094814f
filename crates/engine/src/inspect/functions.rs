//! What a model's local functions come to when every call is replaced by the function's body, as the runtime does.

use std::collections::HashMap;

use super::wire::{Fields, Malformed, Value};

/// A function's domain and name. Overloads count as one function with the bodies of all.
pub(super) type Name<'a> = (&'a [u8], &'a [u8]);

/// The functions a model declares, by name.
#[derive(Debug, Default)]
pub(super) struct Functions<'a> {
    numbers: HashMap<Name<'a>, usize>,
    /// The function of each `FunctionProto`, in the file's order.
    of_body: Vec<usize>,
}

/// The nodes of a graph, or of a function, with all graphs inside them.
#[derive(Debug, Default)]
pub(super) struct Body {
    nodes: u64,
    /// How often it calls which function.
    calls: HashMap<usize, u64>,
}

impl Body {
    /// Adds a node: a call of a function, or an operator.
    pub(super) fn add(&mut self, function: Option<usize>) {
        self.nodes = self.nodes.saturating_add(1);
        if let Some(function) = function {
            *self.calls.entry(function).or_default() += 1;
        }
    }

    fn join(&mut self, other: &Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        for (function, count) in &other.calls {
            *self.calls.entry(*function).or_default() += count;
        }
    }

    fn expanded(&self, sizes: &[u64]) -> u64 {
        self.calls.iter().fold(self.nodes, |sum, (function, count)| {
            sum.saturating_add(sizes.get(*function).copied().unwrap_or(0).saturating_mul(*count))
        })
    }
}

impl<'a> Functions<'a> {
    /// Files a `FunctionProto` by its name.
    pub(super) fn declare(&mut self, function: &'a [u8]) -> Result<(), Malformed> {
        let name = name(function, 10, 1)?;
        let next = self.numbers.len();
        self.of_body.push(*self.numbers.entry(name).or_insert(next));
        Ok(())
    }

    pub(super) fn find(&self, name: &Name<'_>) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// The nodes of `main` with every call replaced; `None` if functions call each other in a circle. `bodies` are the
    /// functions' in the file's order.
    pub(super) fn expanded(&self, bodies: &[Body], main: &Body) -> Option<u64> {
        let count = self.numbers.len();
        let mut joined: Vec<Body> = (0..count).map(|_| Body::default()).collect();
        for (function, body) in self.of_body.iter().zip(bodies) {
            joined.get_mut(*function)?.join(body);
        }
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (caller, body) in joined.iter().enumerate() {
            for called in body.calls.keys() {
                callers.get_mut(*called)?.push(caller);
            }
        }
        // Whatever calls nothing that is unknown has its size; then those that wait for it may have theirs.
        let mut waiting: Vec<usize> = joined.iter().map(|body| body.calls.len()).collect();
        let mut ready: Vec<usize> = (0..count).filter(|function| waiting.get(*function) == Some(&0)).collect();
        let (mut sizes, mut done) = (vec![0_u64; count], 0);
        while let Some(function) = ready.pop() {
            done += 1;
            *sizes.get_mut(function)? = joined.get(function)?.expanded(&sizes);
            for caller in callers.get(function)? {
                let left = waiting.get_mut(*caller)?;
                *left -= 1;
                if *left == 0 {
                    ready.push(*caller);
                }
            }
        }
        (done == count).then(|| main.expanded(&sizes))
    }
}

/// What a `NodeProto` calls.
pub(super) fn called(node: &[u8]) -> Result<Name<'_>, Malformed> {
    name(node, 7, 4)
}

/// Domain and name in these fields; the last of each counts.
fn name(message: &[u8], domain_field: u32, name_field: u32) -> Result<Name<'_>, Malformed> {
    let (mut domain, mut name) = (&b""[..], &b""[..]);
    for field in Fields::of(message) {
        match field? {
            (number, Value::Bytes(text)) if number == domain_field => domain = text,
            (number, Value::Bytes(text)) if number == name_field => name = text,
            _ => {}
        }
    }
    // Two names of the same domain.
    Ok((if domain == b"ai.onnx" { b"" } else { domain }, name))
}

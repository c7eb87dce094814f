//! Inputs and outputs as a folder declares them, against what the model's file says.

use tenantry_types::DataType;

use crate::{Finding, Outcome, shown};

/// Whether declared extents have the batch in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leading {
    /// The extents are all there are.
    #[default]
    Exact,
    /// The batch's comes before them.
    Batch,
    /// It is not said.
    Unknown,
}

/// One declared input or output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its element type; absent: not said.
    pub datatype: Option<DataType>,
    /// Its extents, -1 where a request chooses; absent: not said.
    pub dims: Option<Vec<i64>>,
    /// Whether the batch's is among them.
    pub leading: Leading,
}

/// One input or output of a registered version, as the admin API gives it.
#[derive(Debug, Clone, Copy)]
pub struct Registered<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub datatype: &'a str,
    /// Its extents, -1 where a request chooses.
    pub shape: &'a [i64],
}

/// What is declared, before there is anything to compare it with.
pub fn announce(kind: &str, declared: &[Declared]) -> Vec<Finding> {
    let note = "compared with the model's file once it is registered";
    let finding = |declared: &Declared| {
        Finding::new(&format!("{kind} {}", declared.name), &text(declared), Outcome::Compared, note)
    };
    declared.iter().map(finding).collect()
}

/// What was declared against what is registered, one finding each. `kind` is `input` or `output`.
pub fn compare(kind: &str, declared: &[Declared], registered: &[Registered<'_>]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = declared
        .iter()
        .map(|declared| {
            let (outcome, note) = match registered.iter().find(|tensor| tensor.name == declared.name) {
                None => (Outcome::Differs, format!("the model has no such {kind}; it has {}", names(registered))),
                Some(tensor) => match difference(declared, *tensor) {
                    None => (Outcome::Compared, "as the model has it".to_owned()),
                    Some(difference) => (Outcome::Differs, difference),
                },
            };
            Finding::new(&format!("{kind} {}", declared.name), &text(declared), outcome, note)
        })
        .collect();
    // With none declared at all, the folder leaves it to the model's file.
    let missing = registered.iter().filter(|tensor| declared.iter().all(|declared| declared.name != tensor.name));
    if !declared.is_empty() {
        findings.extend(missing.map(|tensor| {
            let note = "the model has it, too, though it is not declared".to_owned();
            Finding::new(&format!("{kind} {}", tensor.name), &registered_text(*tensor), Outcome::Differs, note)
        }));
    }
    findings
}

fn difference(declared: &Declared, registered: Registered<'_>) -> Option<String> {
    let has = || format!("the model has {}", registered_text(registered));
    if declared.datatype.is_some_and(|datatype| datatype.as_str() != registered.datatype) {
        return Some(has());
    }
    let Some(dims) = &declared.dims else { return None };
    let fits = |dims: &[i64]| {
        dims.len() == registered.shape.len()
            && dims.iter().zip(registered.shape).all(|(declared, has)| *declared < 0 || *has < 0 || declared == has)
    };
    let batch = || -> Vec<i64> { std::iter::once(-1).chain(dims.iter().copied()).collect() };
    let with_batch_fits = || fits(&batch()) && registered.shape.first().is_some_and(|first| *first < 0);
    let fits = match declared.leading {
        Leading::Exact => fits(dims),
        Leading::Batch => with_batch_fits(),
        Leading::Unknown => fits(dims) || with_batch_fits(),
    };
    (!fits).then(has)
}

fn text(declared: &Declared) -> String {
    let datatype = declared.datatype.map_or("any type", DataType::as_str);
    let dims = declared.dims.as_ref().map(|dims| {
        let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
        let batch = if declared.leading == Leading::Batch { "batch," } else { "" };
        format!("[{batch}{}]", dims.join(",")).replace(",]", "]")
    });
    format!("{datatype}{}", dims.unwrap_or_default())
}

fn registered_text(tensor: Registered<'_>) -> String {
    let dims: Vec<String> = tensor.shape.iter().map(i64::to_string).collect();
    format!("{}[{}]", tensor.datatype, dims.join(","))
}

fn names(registered: &[Registered<'_>]) -> String {
    let names: Vec<String> = registered.iter().map(|tensor| format!("`{}`", shown(tensor.name))).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, datatype: DataType, dims: &[i64], leading: Leading) -> Declared {
        Declared { name: name.to_owned(), datatype: Some(datatype), dims: Some(dims.to_vec()), leading }
    }

    /// The outcome for an input declared so, of a model whose `x` is FP32[-1,3].
    fn of(declared: Declared) -> Outcome {
        let registered = [Registered { name: "x", datatype: "FP32", shape: &[-1, 3] }];
        compare("input", &[declared], &registered)[0].outcome
    }

    #[test]
    fn extents_are_compared_with_and_without_the_batch() {
        let x = |dims: &[i64], leading| of(declared("x", DataType::Fp32, dims, leading));
        assert_eq!(x(&[3], Leading::Batch), Outcome::Compared);
        assert_eq!(x(&[-1], Leading::Batch), Outcome::Compared);
        assert_eq!(x(&[-1, 3], Leading::Exact), Outcome::Compared);
        assert_eq!(x(&[7, 3], Leading::Exact), Outcome::Compared, "the model takes any number of rows");
        assert_eq!(x(&[3], Leading::Unknown), Outcome::Compared);
        assert_eq!(x(&[-1, 3], Leading::Unknown), Outcome::Compared);
        for (dims, leading) in [
            (&[3][..], Leading::Exact),
            (&[4], Leading::Batch),
            (&[-1, 3], Leading::Batch),
            (&[-1, 4], Leading::Exact),
            (&[], Leading::Batch),
            (&[4], Leading::Unknown),
        ] {
            assert_eq!(x(dims, leading), Outcome::Differs, "{dims:?} {leading:?}");
        }
        assert_eq!(of(declared("x", DataType::Fp64, &[3], Leading::Batch)), Outcome::Differs);
        assert_eq!(of(declared("y", DataType::Fp32, &[3], Leading::Batch)), Outcome::Differs);
        let unsaid = Declared { name: "x".to_owned(), ..Declared::default() };
        assert_eq!(of(unsaid), Outcome::Compared);
    }

    #[test]
    fn a_batch_that_the_model_fixes_is_none() {
        let registered = [Registered { name: "x", datatype: "FP32", shape: &[1, 3] }];
        let found = compare("input", &[declared("x", DataType::Fp32, &[3], Leading::Batch)], &registered);
        assert_eq!(found[0].outcome, Outcome::Differs);
        assert_eq!((found[0].value.as_str(), found[0].note.as_str()), ("FP32[batch,3]", "the model has FP32[1,3]"));
    }

    #[test]
    fn what_is_declared_of_another_model_or_left_out_is_said() {
        let registered = [
            Registered { name: "x", datatype: "FP32", shape: &[-1] },
            Registered { name: "mask", datatype: "BOOL", shape: &[-1] },
        ];
        let found = compare("input", &[declared("z", DataType::Fp32, &[-1], Leading::Exact)], &registered);
        let notes: Vec<(&str, Outcome)> = found.iter().map(|f| (f.setting.as_str(), f.outcome)).collect();
        assert_eq!(
            notes,
            [("input z", Outcome::Differs), ("input x", Outcome::Differs), ("input mask", Outcome::Differs)]
        );
        assert!(found[0].note.contains("`x`, `mask`"), "{}", found[0].note);
        assert!(compare("input", &[], &registered).is_empty());
    }
}

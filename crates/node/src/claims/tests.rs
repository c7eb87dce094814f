use smallvec::smallvec;
use tenantry_types::{DataType, Dim, TensorSpec};

use super::*;

const TASK: TaskId = TaskId(7);
const ARENA_BYTES: u64 = 4096;

fn signature() -> Signature {
    let output = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Uint8,
        dims: vec![Dim::Named("n".to_owned()), Dim::Fixed(4)],
    };
    Signature { inputs: Vec::new(), outputs: vec![output("y"), output("z")] }
}

fn claimed(index: u16, rows: u64, offset: u64) -> TensorDescriptor {
    TensorDescriptor { index, datatype: DataType::Uint8, shape: smallvec![rows, 4], offset, bytes: rows * 4 }
}

fn finished(outputs: Vec<TensorDescriptor>) -> FromWorker {
    FromWorker::Finished { task: TASK, outputs, compute_ns: 0 }
}

fn answer(job: Job<'_>, frame: FromWorker) -> Result<Claim, ProtocolViolation> {
    let output = OutputArena::create(ARENA_BYTES).unwrap();
    let running = Some(Expectation { task: TASK, end_asked: false, job });
    check(&Expected { layers: 0, running, output: Some(&output) }, frame)
}

#[test]
fn each_member_gets_its_rows_of_each_output() {
    let signature = signature();
    let job = Job::Infer { signature: &signature, wanted: &[1, 0], rows: &[1, 2] };
    let Ok(Claim::Finished(outputs)) = answer(job, finished(vec![claimed(1, 3, 64), claimed(0, 3, 0)])) else {
        panic!("honest outputs are taken")
    };
    let names: Vec<_> = outputs.iter().map(|parts| parts[0].name.as_str()).collect();
    assert_eq!(names, ["z", "y"]);
    assert!(outputs.iter().all(|parts| parts.iter().map(|part| part.data.len()).collect::<Vec<_>>() == [4, 8]));
}

#[test]
fn outputs_lie_inside_the_memory_and_not_on_top_of_each_other() {
    let signature = signature();
    let all = ARENA_BYTES / 4;
    let one = Job::Infer { signature: &signature, wanted: &[0], rows: &[all] };
    assert!(answer(one, finished(vec![claimed(0, all, 0)])).is_ok());
    for offset in [1, ARENA_BYTES, u64::MAX] {
        let outside = answer(one, finished(vec![claimed(0, all, offset)])).unwrap_err();
        assert!(outside.to_string().contains("outside its memory"), "{outside}");
    }
    let both = Job::Infer { signature: &signature, wanted: &[0, 1], rows: &[all] };
    let twice = answer(both, finished(vec![claimed(0, all, 0), claimed(1, all, 0)])).unwrap_err();
    assert!(twice.to_string().contains("on top of each other"), "{twice}");
}

#[test]
fn an_answer_is_of_the_kind_and_to_the_task_that_was_asked() {
    let signature = signature();
    let replica = ReplicaId(3);
    let infer = Job::Infer { signature: &signature, wanted: &[], rows: &[1] };
    let load = Job::Load(replica);
    let loaded = |task, replica| FromWorker::Loaded { task, replica, load_ns: 0, resident_bytes: 9 };
    assert_eq!(answer(load, loaded(TASK, replica)), Ok(Claim::Loaded { resident_bytes: 9 }));
    for (job, frame) in [
        (load, loaded(TASK, ReplicaId(4))),
        (load, loaded(TaskId(8), replica)),
        (load, finished(Vec::new())),
        (load, FromWorker::NeedOutput { task: TASK, bytes: u64::MAX }),
        (infer, loaded(TASK, replica)),
        (infer, FromWorker::NeedOutput { task: TASK, bytes: ARENA_BYTES }),
    ] {
        assert!(answer(job, frame.clone()).is_err(), "{frame:?} in answer to {job:?}");
    }
    let idle = Expected { layers: 0, running: None, output: None };
    assert!(check(&idle, finished(Vec::new())).is_err());
}

#[test]
fn the_optimised_form_is_as_long_as_claimed() {
    let registration = Box::new(Registration {
        pipeline: None,
        signature: signature(),
        metadata: tenantry_types::model::FileMetadata::default(),
        can_batch: false,
        profile: tenantry_types::model::Profile {
            runtime: String::new(),
            options: tenantry_types::model::EngineOptions::default(),
            load_ns: 0,
            optimised_load_ns: 0,
            resident_bytes: 0,
            optimised_bytes: 10,
            best_batch: 1,
            points: Vec::new(),
        },
    });
    let frame =
        |optimised_bytes| FromWorker::Registered { task: TASK, registration: registration.clone(), optimised_bytes };
    let job = Job::Register { written_bytes: 10 };
    assert!(answer(job, frame(10)).is_ok());
    assert!(answer(job, frame(11)).is_err());
    assert!(answer(Job::Load(ReplicaId(1)), frame(10)).is_err());
}

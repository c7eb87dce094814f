//! Encryption at rest.

use tenantry_server::admin as values;

use crate::admin::types;

impl From<values::EncryptionInfo> for types::Encryption {
    fn from(info: values::EncryptionInfo) -> Self {
        let values::EncryptionInfo { summary, job } = info;
        Self {
            enabled: summary.is_on,
            keeper: summary.kind.map(str::to_owned),
            master_key: summary.master_key,
            data_keys: summary.data_keys,
            behind: summary.behind,
            tenants_behind: summary.tenants_behind,
            clear_files: summary.clear_files,
            clear_bytes: summary.clear_bytes,
            job: job.map(Into::into),
        }
    }
}

impl From<values::TenantEncryption> for types::TenantEncryption {
    fn from(info: values::TenantEncryption) -> Self {
        let values::TenantEncryption { tenant, generations, files } = info;
        let generation = |kept: values::KeyGeneration| types::KeyGeneration {
            generation: kept.generation,
            master_key: kept.master_key,
            created_ms: kept.created_ms,
        };
        Self {
            tenant,
            generations: generations.into_iter().map(generation).collect(),
            files: files.files,
            bytes: files.bytes,
            plain: files.plain,
            behind: files.behind,
        }
    }
}

impl From<values::EncryptionJob> for types::EncryptionJob {
    fn from(job: values::EncryptionJob) -> Self {
        Self {
            number: job.number,
            kind: match job.kind {
                values::EncryptionJobKind::Rekey => types::EncryptionJobKind::Rekey,
                values::EncryptionJobKind::Rewrap => types::EncryptionJobKind::Rewrap,
            },
            tenant: job.tenant,
            state: match job.state {
                values::EncryptionJobState::Running => types::EncryptionJobState::Running,
                values::EncryptionJobState::Done => types::EncryptionJobState::Done,
                values::EncryptionJobState::Failed => types::EncryptionJobState::Failed,
            },
            error: job.error,
            done: job.done,
            total: job.total,
            files: job.files,
            rewritten: job.rekeyed.files,
            rewritten_bytes: job.rekeyed.bytes,
            damaged: job.rekeyed.damaged,
            generations_gone: job.rekeyed.generations_gone,
            generations_left: job.rekeyed.generations_left,
            started_ms: job.started_ms,
            ended_ms: job.ended_ms,
        }
    }
}

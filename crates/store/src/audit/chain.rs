//! What a record's hash covers, and how records from before there were hashes get theirs.
//!
//! The hash is SHA-256 over [`Columns::encode`]: a fixed word, then every column in a fixed order. A number is eight bytes, the
//! highest first; a text is its length in bytes as such a number, and its bytes; what may be absent has a byte in front that
//! says whether it is there. No field can be mistaken for a part of its neighbour, so different records have different bytes.
//!
//! What a chain shows: nobody has changed records without changing all later ones and the chain's end. Whoever can write to the
//! database can do that too. A record's hash that is kept elsewhere, such as in an export, fixes it and everything before it.

use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tenantry_types::Digest;

use crate::OpenError;
use crate::database::Database;
use crate::limits::MAX_AUDIT_PAGE;

/// What every encoding begins with. Another encoding has another word.
const WORD: &[u8] = b"tenantry audit record 1";
/// What the first record of all holds as the hash of the one before it.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A record as its row has it, byte for byte, but for its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) sequence: i64,
    pub(super) at_ms: i64,
    pub(super) actor_tenant: Option<String>,
    pub(super) actor_key: Option<String>,
    pub(super) actor_role: Option<String>,
    pub(super) tenant_id: Option<String>,
    pub(super) action: String,
    pub(super) object: String,
    pub(super) outcome: String,
    pub(super) detail: String,
    pub(super) source: String,
    pub(super) generation: Option<i64>,
    pub(super) previous: String,
}

impl Columns {
    /// The columns of a row.
    ///
    /// # Errors
    /// A column that holds something of another type.
    pub(super) fn of(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sequence: row.try_get("sequence")?,
            at_ms: row.try_get("at_ms")?,
            actor_tenant: row.try_get("actor_tenant")?,
            actor_key: row.try_get("actor_key")?,
            actor_role: row.try_get("actor_role")?,
            tenant_id: row.try_get("tenant_id")?,
            action: row.try_get("action")?,
            object: row.try_get("object")?,
            outcome: row.try_get("outcome")?,
            detail: row.try_get("detail")?,
            source: row.try_get("source")?,
            generation: row.try_get("generation")?,
            previous: row.try_get("previous")?,
        })
    }

    /// What the hash covers.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = WORD.to_vec();
        number(&mut bytes, self.sequence);
        number(&mut bytes, self.at_ms);
        for maybe in [&self.actor_tenant, &self.actor_key, &self.actor_role, &self.tenant_id] {
            bytes.push(maybe.is_some().into());
            maybe.iter().for_each(|value| text(&mut bytes, value));
        }
        for value in [&self.action, &self.object, &self.outcome, &self.detail, &self.source] {
            text(&mut bytes, value);
        }
        bytes.push(self.generation.is_some().into());
        self.generation.iter().for_each(|value| number(&mut bytes, *value));
        text(&mut bytes, &self.previous);
        bytes
    }

    /// The record's hash, as it is kept.
    pub(super) fn hash(&self) -> String {
        hex(Sha256::digest(self.encode()).into())
    }

    /// Adds the record, and makes it the chain's end.
    pub(super) async fn insert(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let hash = self.hash();
        set_end(connection, "head", &hash).await?;
        sqlx::query(
            "INSERT INTO audit (sequence, at_ms, actor_tenant, actor_key, actor_role, tenant_id, action, object, outcome,
                 detail, source, generation, previous, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(self.sequence)
        .bind(self.at_ms)
        .bind(self.actor_tenant)
        .bind(self.actor_key)
        .bind(self.actor_role)
        .bind(self.tenant_id)
        .bind(self.action)
        .bind(self.object)
        .bind(self.outcome)
        .bind(self.detail)
        .bind(self.source)
        .bind(self.generation)
        .bind(self.previous)
        .bind(hash)
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn number(bytes: &mut Vec<u8>, value: i64) {
    bytes.extend(value.to_be_bytes());
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend(value.as_bytes());
}

fn hex(bytes: [u8; 32]) -> String {
    Digest::from_bytes(bytes).to_string()
}

async fn set_end(connection: &mut AnyConnection, name: &str, hash: &str) -> Result<(), sqlx::Error> {
    let set = sqlx::query("UPDATE audit_ends SET hash = $1 WHERE name = $2").bind(hash).bind(name);
    set.execute(connection).await.map(drop)
}

/// Chains the records from before there were hashes, all of them or none. What they said until then nothing proves; numbers
/// that are missing among them went by age, which took records out of the middle then.
pub(crate) async fn complete(database: &Database) -> Result<(), OpenError> {
    let mut transaction = database.append().await?;
    // Locks the row: of several servers that open one database, one does it.
    let head = sqlx::query("UPDATE audit_ends SET sequence = sequence WHERE name = 'head' RETURNING hash")
        .fetch_one(&mut *transaction)
        .await?;
    if !head.try_get::<&str, _>("hash")?.is_empty() {
        return Ok(());
    }
    set_end(&mut transaction, "anchor", NOTHING).await?;
    let (mut after, mut previous) = (i64::MIN, NOTHING.to_owned());
    loop {
        let rows = sqlx::query("SELECT * FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(after)
            .bind(i64::from(MAX_AUDIT_PAGE))
            .fetch_all(&mut *transaction)
            .await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let record = Columns { previous, ..Columns::of(row)? };
            let hash = record.hash();
            sqlx::query("UPDATE audit SET previous = $1, hash = $2 WHERE sequence = $3")
                .bind(record.previous)
                .bind(&hash)
                .bind(record.sequence)
                .execute(&mut *transaction)
                .await?;
            (after, previous) = (record.sequence, hash);
        }
    }
    set_end(&mut transaction, "head", &previous).await?;
    Ok(transaction.commit().await?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Short texts of few letters, so that boundaries between fields are where cases meet.
    fn columns() -> impl Strategy<Value = Columns> {
        let word = || "[ab\u{0}\u{1}]{0,3}";
        let maybe = || proptest::option::of("[ab\u{0}]{0,2}");
        let numbers = (0..3_i64, 0..3_i64, proptest::option::of(0..3_i64));
        let texts = (word(), word(), word(), word(), word(), word());
        (numbers, (maybe(), maybe(), maybe(), maybe()), texts).prop_map(|(numbers, maybes, texts)| Columns {
            sequence: numbers.0,
            at_ms: numbers.1,
            actor_tenant: maybes.0,
            actor_key: maybes.1,
            actor_role: maybes.2,
            tenant_id: maybes.3,
            action: texts.0,
            object: texts.1,
            outcome: texts.2,
            detail: texts.3,
            source: texts.4,
            generation: numbers.2,
            previous: texts.5,
        })
    }

    /// Moves the last letter of a field to the beginning of the next.
    fn shifted(record: &Columns) -> Vec<Columns> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Columns) -> Option<()>| {
            let mut other = record.clone();
            all.extend(change(&mut other).map(|()| other));
        };
        let shift = |from: &mut String, to: &mut String| from.pop().map(|letter| to.insert(0, letter));
        add(&|r| shift(&mut r.action, &mut r.object));
        add(&|r| shift(&mut r.object, &mut r.outcome));
        add(&|r| shift(&mut r.outcome, &mut r.detail));
        add(&|r| shift(&mut r.detail, &mut r.source));
        add(&|r| shift(&mut r.source, &mut r.previous));
        add(&|r| r.actor_key.take().map(|value| drop(r.actor_role.replace(value))));
        add(&|r| r.actor_role.take().map(|value| drop(r.tenant_id.replace(value))));
        all
    }

    proptest! {
        #[test]
        fn different_records_have_different_bytes(a in columns(), b in columns()) {
            prop_assert_eq!(a == b, a.encode() == b.encode());
            for other in shifted(&a) {
                prop_assert_eq!(a == other, a.encode() == other.encode(), "{:?}", other);
            }
        }
    }

    #[test]
    fn the_encoding_stays_what_it_is() {
        let record = Columns {
            sequence: 7,
            at_ms: 1_700_000_000_000,
            actor_tenant: None,
            actor_key: Some("key_1".to_owned()),
            actor_role: Some("unknown".to_owned()),
            tenant_id: None,
            action: "key.revoke".to_owned(),
            object: "it".to_owned(),
            outcome: "ok".to_owned(),
            detail: String::new(),
            source: "127.0.0.1".to_owned(),
            generation: Some(3),
            previous: NOTHING.to_owned(),
        };
        // Made by another program from the description above. Another value means that no older chain verifies any more.
        assert_eq!(record.hash(), "74309c6e96202b2ed7e5a4668b2864c7981946dfe563d6568569798d7a0cfad4");
    }
}

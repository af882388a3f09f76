//! A login as a row.

use super::failed::Failed;
use super::rows::{at, json, signed, span};
use crate::session::record::SessionRecord;
use crate::session::store::NewSession;
use tokio_postgres::types::ToSql;

/// A record's columns, beside its texts.
pub(super) struct NewRow<'a> {
    record: &'a SessionRecord,
    issuer: &'a str,
    id: Vec<u8>,
    keys: [Vec<u8>; 3],
    texts: [String; 2],
    numbers: [i64; 8],
}

impl<'a> NewRow<'a> {
    pub(super) fn of(new: &NewSession, record: &'a SessionRecord) -> Result<Self, Failed> {
        Ok(Self {
            record,
            issuer: &record.issuer,
            id: record.id.as_bytes().to_vec(),
            keys: [new.session_key, new.subject_key, new.issuer_key].map(|key| key.to_bytes().to_vec()),
            texts: [json(&record.device)?, json(&record.attributes)?],
            numbers: [
                signed(record.attributes_version),
                at(record.created_at),
                at(record.last_active_at),
                span(record.idle),
                at(record.absolute_end),
                at(record.ends_at()),
                signed(record.generation),
                at(record.generation_began_at),
            ],
        })
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 18] {
        let [session_key, subject_key, issuer_key] = &self.keys;
        let [device, attributes] = &self.texts;
        let [version, created, active, idle, end, ends, generation, began] = &self.numbers;
        let SessionRecord { subject, policy, client_id, .. } = self.record;
        [
            &self.id,
            session_key,
            subject_key,
            issuer_key,
            &self.issuer,
            subject,
            policy,
            client_id,
            device,
            attributes,
            version,
            created,
            active,
            idle,
            end,
            ends,
            generation,
            began,
        ]
    }
}

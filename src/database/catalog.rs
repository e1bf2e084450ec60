//! Reads every schema object of a database into canonical data: one statement per kind of object, in three files beside this one.
//! A line `-- when:` above a statement says what must hold rows for it to be sent.
//!
//! It knows which catalogs there are and nothing about how catalogs are compared. Objects that an extension owns and the system's own
//! schemas are left out; the extension itself, with its version, stands for them. Roles and tablespaces belong to the server, not here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use sqlx::{PgConnection, Row as _};
use turnback_core::schema::{Catalog, Object};

use super::DatabaseError;
use super::session::{failed, fetch, literal};

const GROUPS: [(&str, &str); 3] = [
    ("relations", include_str!("catalog/relations.sql")),
    ("types and routines", include_str!("catalog/types.sql")),
    ("database objects", include_str!("catalog/globals.sql")),
];

/// Sequences asked for in one statement.
const SEQUENCES_AT_ONCE: usize = 200;

/// One statement about one kind of object.
#[derive(Clone, Copy)]
struct Question {
    /// The file it stands in.
    group: &'static str,
    /// What must hold rows for it to have any: the rest of a query after FROM. Most databases hold none of most kinds, and asking whether
    /// there is one is far cheaper than planning the statement.
    when: Option<&'static str>,
    sql: &'static str,
}

/// The statements that are still to be sent. Connections that see one snapshot take from it side by side, one statement at a time: the server
/// spends its time planning, so that the quickest way is to keep every connection busy.
pub(super) struct Questions(Mutex<VecDeque<Question>>);

impl Questions {
    /// Those that have an answer in this database.
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, DatabaseError> {
        const READ: &str = "look what kinds of object are in";
        const OBJECT: &str = "the catalog";
        let conditions: Vec<_> = questions().filter_map(|question| question.when).collect();
        let asked: Vec<_> = conditions.iter().map(|when| format!("EXISTS (SELECT FROM {when})::text")).collect();
        let rows = fetch(connection, format!("SELECT concat_ws(' ', {})", asked.join(", ")), READ, OBJECT).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::Catalog {
            what: "kinds of object",
            object: OBJECT.into(),
            problem: "no row came back".into(),
        })?;
        let answer: String = row.try_get(0).map_err(failed(READ, OBJECT))?;
        let mut answers = answer.split(' ').map(|one| one == "true");
        // A condition without its answer counts as met: then the statement itself says what there is.
        let wanted = questions().filter(|question| question.when.is_none() || answers.next().unwrap_or(true)).collect();
        Ok(Self(Mutex::new(wanted)))
    }

    fn next(&self) -> Option<Question> {
        // A poisoned queue means that another connection's task panicked; what is left is still right.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
    }

    /// Sends statements until none is left, and returns the objects that came back over this connection.
    pub(super) async fn answer(&self, connection: &mut PgConnection) -> Result<Vec<Object>, DatabaseError> {
        let mut objects = Vec::new();
        while let Some(Question { group, sql, .. }) = self.next() {
            for row in fetch(connection, expand(sql), "read the catalog's", group).await? {
                objects.push(object(&row).map_err(|source| failed("understand the catalog's", group)(source))?);
            }
        }
        Ok(objects)
    }
}

fn questions() -> impl Iterator<Item = Question> {
    GROUPS.into_iter().flat_map(|(group, text)| {
        text.split(";\n").filter(|sql| !sql.trim().is_empty()).map(move |sql| {
            let when = sql.lines().find_map(|line| line.strip_prefix("-- when: "));
            Question { group, when, sql }
        })
    })
}

/// The catalog from all objects that were read, with where each sequence stands.
pub(super) async fn finish(connection: &mut PgConnection, mut objects: Vec<Object>) -> Result<Catalog, DatabaseError> {
    sequence_values(connection, &mut objects).await?;
    Ok(Catalog::new(objects))
}

fn object(row: &sqlx::postgres::PgRow) -> Result<Object, sqlx::Error> {
    let properties: String = row.try_get(3)?;
    let properties: BTreeMap<String, Option<String>> =
        serde_json::from_str(&properties).map_err(|problem| sqlx::Error::Decode(Box::new(problem)))?;
    Ok(Object {
        kind: row.try_get(0)?,
        name: row.try_get(1)?,
        parent: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
        properties: properties.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
    })
}

/// Where each sequence stands. The catalog's views hide it until the first call, so every sequence is read itself.
async fn sequence_values(connection: &mut PgConnection, objects: &mut [Object]) -> Result<(), DatabaseError> {
    let mut sequences: Vec<&mut Object> = objects.iter_mut().filter(|object| object.kind == "sequence").collect();
    for some in sequences.chunks_mut(SEQUENCES_AT_ONCE) {
        let each: Vec<String> = some
            .iter()
            .map(|sequence| format!("SELECT {} AS name, last_value::text, is_called::text FROM {}", literal(&sequence.name), sequence.name))
            .collect();
        let object = if let [only] = &some[..] { only.name.clone() } else { format!("{} sequences", some.len()) };
        let rows = fetch(connection, each.join(" UNION ALL "), "read the values of", &object).await?;
        for (sequence, row) in some.iter_mut().zip(rows) {
            for (property, index) in [("last_value", 1), ("is_called", 2)] {
                let value: String = row.try_get(index).map_err(failed("read the values of", &object))?;
                sequence.properties.insert(property.into(), value);
            }
        }
    }
    Ok(())
}

/// Expands the three shorthands that the statements share.
fn expand(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() * 2);
    let mut rest = sql;
    while let Some(start) = rest.find('$') {
        let (before, call) = rest.split_at(start);
        let Some((inside, after)) = call[1..].split_once(")$") else { break };
        let Some((name, arguments)) = inside.split_once('(') else { break };
        out += before;
        out += &shorthand(name, &arguments.split(", ").collect::<Vec<_>>());
        rest = after;
    }
    out + rest
}

fn shorthand(name: &str, arguments: &[&str]) -> String {
    match (name, arguments) {
        // Names that begin with pg_ are the system's; temporary schemas among them.
        ("user", [schema]) => format!(r"({schema} !~ '^pg_' AND {schema} <> 'information_schema')"),
        ("own", [class, object]) => {
            format!("NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{class}'::regclass AND e.objid = {object} AND e.deptype = 'e')")
        }
        // An absent list means the default one, so both read the same. One entry per grantee and grantor.
        ("acl", [list, kind, owner]) => {
            let list = if *kind == "c" { (*list).to_owned() } else { format!("coalesce({list}, acldefault('{kind}', {owner}))") };
            format!(
                "(SELECT coalesce(string_agg(entry, '; ' ORDER BY entry COLLATE \"C\"), '') FROM (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' \
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END || ': ' || string_agg(x.privilege_type || CASE WHEN x.is_grantable \
                 THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY x.privilege_type) || ' from ' || \
                 quote_ident(pg_get_userbyid(x.grantor)) AS entry FROM aclexplode({list}) x GROUP BY x.grantee, x.grantor) entries)"
            )
        }
        _ => unreachable!("the statements beside this file use only the three shorthands above, which a test expands"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shorthand_in_the_statements_is_known() {
        for (group, sql) in GROUPS {
            assert!(sql.contains('$') && !expand(sql).contains('$'), "{group}");
        }
    }

    #[test]
    fn the_files_fall_apart_into_whole_statements() {
        assert!(questions().count() > 30);
        for Question { group, sql, when } in questions() {
            assert_eq!(sql.matches("when:").count(), usize::from(when.is_some()), "{group}: {sql}");
            let text: String = sql.lines().filter(|line| !line.starts_with("--")).collect();
            assert!(text.starts_with("SELECT") || text.starts_with("WITH"), "{group}: {text}");
            assert!(!text.contains(';'), "{group}: {text}");
        }
    }
}

//! One map, entry by entry, with the names of services and backends in place of bare ids: `map dump`.

mod decoder;

pub use decoder::dump;

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::Value;

use super::{Rows, table::table};
use crate::dataplane::kernel::MapRow;

/// The entries of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Dump {
    /// Sorts the rows, because hash maps have no order.
    fn sorted(mut self) -> Self {
        let numbers = |row: &Vec<Value>| row.iter().map(|it| it.as_u64()).collect::<Vec<_>>();
        self.rows.sort_by_cached_key(|row| (numbers(row), row.iter().map(Value::to_string).collect::<Vec<_>>()));
        self
    }
}

impl Serialize for Dump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            rows.serialize_element(&Entry { columns: self.columns, row })?;
        }
        rows.end()
    }
}

struct Entry<'a> {
    columns: &'static [&'static str],
    row: &'a [Value],
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(Some(self.columns.len()))?;
        for (name, value) in self.columns.iter().zip(self.row) {
            fields.serialize_entry(name, value)?;
        }
        fields.end()
    }
}

impl Rows for Dump {
    fn table(&self) -> String {
        if self.rows.is_empty() {
            return "no entries".into();
        }
        let header: Vec<String> = self.columns.iter().map(|name| name.to_uppercase()).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let is_number = |i: usize| self.rows.iter().all(|row| row[i].is_number() || row[i].is_null());
        let numbers: Vec<&str> = (0..header.len()).filter(|i| is_number(*i)).map(|i| header[i]).collect();
        let cell = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            Value::String(text) if text.is_empty() => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table(&header, &numbers, self.rows.iter().map(|row| row.iter().map(cell).collect()))
    }
}

impl Rows for Vec<MapRow> {
    fn table(&self) -> String {
        let header = ["MAP", "ID", "KIND", "KEY", "VALUE", "ENTRIES", "USED"];
        let rows = self.iter().map(|row| {
            vec![
                row.map.into(),
                row.id.to_string(),
                row.kind.into(),
                row.key.to_string(),
                row.value.to_string(),
                if row.entries == 0 { "-".into() } else { row.entries.to_string() },
                row.used.map_or("-".into(), |used| used.to_string()),
            ]
        });
        table(&header, &["ID", "KEY", "VALUE", "ENTRIES", "USED"], rows)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dump_keeps_the_order_of_columns_and_aligns_numbers() {
        let rows = vec![vec![json!(12), json!("/web"), json!(null)], vec![json!(3), json!(""), json!(true)]];
        let dump = Dump { columns: &["service", "name", "local"], rows }.sorted();
        expect_test::expect![[r#"
            SERVICE  NAME  LOCAL
                  3  -     yes
                 12  /web  -
        "#]]
        .assert_eq(&dump.table());
        let json = serde_json::to_string(&dump).unwrap();
        assert_eq!(json, r#"[{"service":3,"name":"","local":true},{"service":12,"name":"/web","local":null}]"#);
    }
}

//! Which JSON schemas llama.cpp's converter may see: it recurses on the stack over names, references and properties, and takes time that
//! grows with their cube. Pure.
//!
//! [`super::grammar`] asks before it converts. That a schema means something is for the converter to find out.

use serde_json::{Map, Value};

/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// Properties of one object: each that is optional makes a rule of all that follow it.
const MAX_PROPERTIES: usize = 256;
/// The longest name of a property or reference, in bytes.
const MAX_NAME: usize = 256;
/// The longest path of names, in bytes: it becomes the name of a rule.
const MAX_PATH: usize = 2048;
/// The largest bound of a length or count: it is unrolled.
const MAX_COUNT: u64 = 10_000;

/// Says what is wrong with a schema, if anything is.
pub(super) fn check(schema: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(schema).map_err(|error| format!("the schema is no JSON: {error}"))?;
    if !(value.is_object() || value.is_boolean()) {
        return Err("a JSON schema is an object".to_owned());
    }
    walk(&value, 1, 0)?;
    references(&value, &value)
}

/// `serde_json` takes no deeper value than 128, so this cannot overflow the stack.
fn walk(value: &Value, depth: usize, path: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the schema nests more than {MAX_DEPTH} deep"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1, path)),
        Value::Object(fields) => {
            fields.get("properties").and_then(Value::as_object).map_or(Ok(()), properties)?;
            counts(fields)?;
            fields.iter().try_for_each(|(name, value)| {
                let path = path + name.len() + 1;
                if name.len() > MAX_NAME || path > MAX_PATH {
                    return Err(format!(
                        "a name in the schema has more than {MAX_NAME} bytes, or a path of names more than {MAX_PATH}"
                    ));
                }
                walk(value, depth + 1, path)
            })
        }
        _ => Ok(()),
    }
}

fn properties(properties: &Map<String, Value>) -> Result<(), String> {
    if properties.len() > MAX_PROPERTIES {
        return Err(format!(
            "an object in the schema has {} properties, and at most {MAX_PROPERTIES} are taken",
            properties.len()
        ));
    }
    Ok(())
}

fn counts(fields: &Map<String, Value>) -> Result<(), String> {
    let unrolled = ["minLength", "maxLength", "minItems", "maxItems"];
    let large = unrolled
        .into_iter()
        .find(|name| fields.get(*name).and_then(Value::as_u64).is_some_and(|count| count > MAX_COUNT));
    match large {
        Some(name) => Err(format!("{name} in the schema is over {MAX_COUNT}")),
        None => Ok(()),
    }
}

/// Follows every reference: one that leads back to itself without anything in between would be followed for ever.
fn references(value: &Value, root: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| references(item, root)),
        Value::Object(fields) => {
            let mut next = fields.get("$ref").and_then(Value::as_str);
            let mut steps = 0;
            while let Some(reference) = next {
                steps += 1;
                if reference.len() > MAX_NAME || steps > MAX_DEPTH {
                    return Err(format!(
                        "the reference {reference:.64?} in the schema is too long, or leads back to itself"
                    ));
                }
                next = reference
                    .strip_prefix('#')
                    .and_then(|pointer| root.pointer(pointer))
                    .and_then(|target| target.get("$ref"))
                    .and_then(Value::as_str);
            }
            fields.values().try_for_each(|value| references(value, root))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        check(&schema.to_string()).unwrap_err()
    }

    #[test]
    fn usual_schemas_pass() {
        let list = json!({
            "type": "object", "properties": {"next": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        });
        check(&list.to_string()).unwrap();
        check("true").unwrap();
    }

    #[test]
    fn what_the_converter_does_not_survive_is_refused() {
        let deep = (0..100).fold(json!({}), |inner, _| json!({ "items": inner }));
        assert!(refused(&deep).contains("deep"));
        let many: Map<String, Value> = (0..300).map(|which| (format!("p{which}"), json!({}))).collect();
        assert!(refused(&json!({ "properties": many })).contains("300 properties"));
        assert!(refused(&json!({ "properties": { "é".repeat(200): {} } })).contains("name"));
        let path = (0..30).fold(json!({}), |inner, _| json!({ "properties": { "x".repeat(100): inner } }));
        assert!(refused(&path).contains("path") || refused(&path).contains("deep"));
        assert!(refused(&json!({ "type": "string", "maxLength": 1_000_000 })).contains("maxLength"));
        let circle = json!({ "allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}} });
        assert!(refused(&circle).contains("leads back"));
    }
}

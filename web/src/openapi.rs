//! The description of the API as `OpenAPI` 3.1, made from the lists that the API itself uses.

use serde_json::{Map, Value, json};
use whence_model::{Command, EventKind, StatementClass};
use whence_store::read::{MAX_BUCKETS, MAX_PAGE_ROWS};
use whence_store::row::FIELD_NAMES;

use crate::handlers::api::DEFAULT_LIMIT;
use crate::query::FILTER_NAMES;

/// The document at `/api/openapi.json`.
pub fn document() -> Value {
    let paging = [&parameters(FILTER_NAMES)[..], &[limit(), cursor()]].concat();
    let histogram = [&parameters(FILTER_NAMES)[..], &[buckets()]].concat();
    let id = json!({
        "name": "id", "in": "path", "required": true, "schema": { "type": "string", "format": "uuid" },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Whence",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Who reached which database, from where, when, with which command and result. \
                Every call is written to the audit of reads.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": {
            "/api/v1/events": get("Events of a filter, newest first", &paging, "Events"),
            "/api/v1/events/{id}": get("One event", std::slice::from_ref(&id), "Event"),
            "/api/v1/histogram": get("Events of a filter over time", &histogram, "Histogram"),
            "/api/v1/report":
                get("Who came from where in a window (role auditor)", &parameters(FILTER_NAMES), "Report"),
            "/api/v1/coverage": get(
                "How each server was watched in a window",
                &parameters(&["instance", "host", "from", "to"]),
                "CoverageAnswer"
            ),
            "/api/v1/instances": get("The database servers that are known", &[], "Instances"),
            "/export.csv": file("All events of a filter, oldest first, as CSV (role auditor)", "text/csv"),
            "/export.ndjson":
                file("All events of a filter, oldest first, as one JSON object a line (role auditor)",
                    "application/x-ndjson"),
            "/export.csv.zip": file(
                "The same as CSV with its signed manifest, in an archive (role auditor)",
                "application/zip"
            ),
            "/export.ndjson.zip": file(
                "The same as JSON lines with its signed manifest, in an archive (role auditor)",
                "application/zip"
            ),
            "/exports/{id}": get(
                "The signed manifest of an export, by the x-request-id of its answer (role auditor)",
                &[id],
                "SignedManifest"
            ),
            "/api/v1/keys": get("The keys that manifests are signed with", &[], "Keys"),
            "/report.csv": file("The access report as CSV (role auditor)", "text/csv"),
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, made with `whence people token`",
                },
            },
            "schemas": schemas(),
        },
    })
}

fn get(summary: &str, parameters: &[Value], schema: &str) -> Value {
    let content = json!({ "application/json": { "schema": reference(schema) } });
    json!({ "get": { "summary": summary, "parameters": parameters, "responses": responses(&content) } })
}

fn file(summary: &str, content_type: &str) -> Value {
    let mut content = Map::new();
    content.insert(content_type.into(), json!({ "schema": { "type": "string" } }));
    let parameters = parameters(FILTER_NAMES);
    let responses = responses(&content.into());
    json!({ "get": { "summary": summary, "parameters": parameters, "responses": responses } })
}

fn responses(content: &Value) -> Value {
    let problem = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": reference("Problem") } } });
    json!({
        "200": { "description": "What was asked for", "content": content },
        "400": problem("Something in the query is wrong; the message says what, and what would be right"),
        "401": problem("The token is missing or wrong"),
        "403": problem("The role does not allow it"),
        "404": problem("There is no such thing"),
        "422": problem("This would read too much"),
        "429": problem("Too many exports run at once"),
        "503": problem("It cannot be answered now; Retry-After says when to try again"),
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn parameters(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| parameter(name)).collect()
}

fn parameter(name: &str) -> Value {
    let text = json!({ "type": "string" });
    let many = |items: Value| json!({ "type": "array", "items": items });
    let named = |names: Vec<&str>| json!({ "type": "string", "enum": names });
    let classes = StatementClass::ALL.iter().map(|class| class.as_str()).collect();
    let kinds = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let (schema, description) = match name {
        "user" => (many(text), "Account, or name given at login; '' (two quotes) is the anonymous account"),
        "client_host" => {
            (text, "Client host as the server names it, an address, or a network such as 10.0.0.0/8")
        }
        "instance" => (json!({ "type": "string", "format": "uuid" }), "Id of the database server"),
        "host" => (text, "Name of the host that the server runs on"),
        "database" => (text, "Current database"),
        "command" => (
            many(json!({ "type": "string", "examples": Command::names() })),
            "Command of the protocol by name",
        ),
        "class" => (many(named(classes)), "Statement class"),
        "kind" => (many(named(kinds)), "What sort of thing happened"),
        "result" => (named(vec!["ok", "error", "unfinished"]), "How it ended"),
        "text" => (text, "Part of the SQL text, in any case of letters"),
        "connection_id" => {
            (json!({ "type": "integer", "minimum": 0 }), "The server's number for the connection")
        }
        "server_started_at" => (time(), "Start of the server's process, which makes a connection_id unique"),
        "from" => (
            text,
            "Beginning of the window: RFC 3339, a date, or a time ago such as -15m, -2h, -7d; a day before the end \
             when it is left out",
        ),
        _ => (
            text,
            "End of the window, not part of it: RFC 3339, a date (the end of that day), or a time ago; now when it is \
             left out",
        ),
    };
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn limit() -> Value {
    let schema =
        json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE_ROWS, "default": DEFAULT_LIMIT });
    json!({ "name": "limit", "in": "query", "description": "Events in one answer", "schema": schema })
}

fn cursor() -> Value {
    let description = "next_cursor of the answer before. Give from and to as that answer has them, so that the window stays";
    json!({ "name": "cursor", "in": "query", "description": description, "schema": { "type": "string" } })
}

fn buckets() -> Value {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": MAX_BUCKETS, "default": 60 });
    json!({ "name": "buckets", "in": "query", "description": "Bars of equal length", "schema": schema })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn or_null(mut schema: Value) -> Value {
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    schema
}

/// The schema of one field of an event.
fn field(name: &str) -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    match name {
        "event_id" | "collector_id" | "batch_id" | "instance_id" => {
            json!({ "type": "string", "format": "uuid" })
        }
        "sequence" | "server_process_id" => number(),
        "started_at" | "received_at" | "server_started_at" => time(),
        "kind" | "provider" | "host" | "product" | "event_hash" => text(),
        "tables" => json!({ "type": "array", "items": text() }),
        "signed" => json!({ "type": "boolean" }),
        "tls" | "sql_truncated" | "error_message_truncated" => or_null(json!({ "type": "boolean" })),
        "duration_ns"
        | "server_port"
        | "client_port"
        | "connection_id"
        | "command_code"
        | "sql_original_bytes"
        | "error_code"
        | "error_message_original_bytes"
        | "rows_sent"
        | "rows_affected"
        | "gap_events" => or_null(number()),
        _ => or_null(text()),
    }
}

fn object(fields: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn many(schema: &str) -> Value {
    json!({ "type": "array", "items": reference(schema) })
}

/// Whether a collector lives.
fn collector() -> Value {
    let text = || json!({ "type": "string" });
    let number = || or_null(json!({ "type": "integer" }));
    object(&[
        ("collector_id", json!({ "type": "string", "format": "uuid" })),
        ("host", text()),
        ("state", text()),
        ("last_seen", or_null(time())),
        ("clock", text()),
        ("clock_error_us", number()),
        ("clock_offset_us", number()),
    ])
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let truth = || json!({ "type": "boolean" });
    let uuid = || json!({ "type": "string", "format": "uuid" });
    let nothing = || or_null(text());
    let window = [("from", time()), ("to", time())];
    let server = [
        ("instance_id", uuid()),
        ("host", text()),
        ("product", text()),
        ("version", nothing()),
        ("server_ip", nothing()),
        ("server_port", or_null(number())),
    ];
    let client = [
        ("user", nothing()),
        ("client_host", nothing()),
        ("client_ip", nothing()),
        ("instance_id", uuid()),
        ("host", text()),
        ("first", time()),
        ("last", time()),
    ];
    let event: Vec<(&str, Value)> = FIELD_NAMES.iter().map(|name| (*name, field(name))).collect();
    let texts = json!({ "type": "array", "items": text() });
    let counts = json!({ "type": "object", "additionalProperties": number() });
    let coverage = [
        ("complete", truth()),
        ("sentences", texts.clone()),
        ("lost_events", number()),
        ("filtered_events", number()),
        ("instances", many("InstanceCoverage")),
    ];
    json!({
        "Problem": {
            "type": "object",
            "properties": {
                "code": text(), "message": text(), "request_id": uuid(),
                "fields": { "type": "array", "items": object(&[("field", text()), ("message", text())]) },
            },
            "required": ["code", "message", "request_id"],
        },
        "Event": object(&event),
        "Events": object(&[
            &window[..],
            &[("events", many("Event")), ("next_cursor", nothing()), ("coverage", reference("Coverage"))],
        ].concat()),
        "Bucket": object(&[&window[..], &[("ok", number()), ("error", number()), ("lost", number())]].concat()),
        "Histogram": object(&[&window[..], &[("buckets", many("Bucket"))]].concat()),
        "Span": object(&window),
        "InstanceCoverage": object(&[
            &server[..],
            &[
                ("first_known", time()), ("watched", many("Span")), ("not_running", many("Span")),
                ("unwatched", many("Span")), ("seen", number()), ("stored", number()), ("filtered", number()),
                ("filtered_by", counts.clone()), ("lost", counts.clone()), ("flaws", counts.clone()), ("details", texts),
            ],
        ].concat()),
        "Coverage": object(&coverage),
        "CoverageAnswer": object(&[
            &window[..], &coverage[..], &[("collectors", many("Collector")), ("turns", many("Turn"))],
        ].concat()),
        "Collector": collector(),
        "Turn": object(&[("at", time()), ("collector_id", uuid()), ("host", text()), ("what", text())]),
        "Instance": object(&[
            &server[..],
            &[
                ("server_process_id", number()), ("container_id", nothing()), ("state", text()), ("provider", nothing()), ("detail", nothing()),
                ("first_seen", time()), ("last_seen", time()),
            ],
        ].concat()),
        "Instances": object(&[("instances", many("Instance"))]),
        "Key": object(&[
            ("public_key", text()), ("host", text()), ("first_used_at", time()), ("own", truth()),
        ]),
        "Keys": object(&[("keys", many("Key"))]),
        "SignedManifest": object(&[
            ("signed", json!({ "type": "object", "description": "docs/verify.md names its fields" })),
            ("public_key", text()), ("signature", text()),
        ]),
        "Access": object(&[
            &client[..],
            &[
                ("events", number()), ("failures", number()), ("connects", number()), ("commands", number()),
                ("classes", counts.clone()),
            ],
        ].concat()),
        "FailedLogins": object(&[
            &client[..],
            &[("error_code", or_null(number())), ("attempts", number())],
        ].concat()),
        "Report": object(&[
            &window[..],
            &[
                ("totals", counts), ("access", many("Access")), ("failed_logins", many("FailedLogins")),
                ("cut_off", truth()), ("coverage", reference("Coverage")),
            ],
        ].concat()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_field_and_every_reference_leads_somewhere() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let event = schemas["Event"]["properties"].as_object().unwrap();
        let named: Vec<&str> = FIELD_NAMES.iter().copied().filter(|name| event.contains_key(*name)).collect();
        assert_eq!(named, FIELD_NAMES);
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let parameters = document["paths"]["/api/v1/events"]["get"]["parameters"].as_array().unwrap();
        assert_eq!(parameters.len(), FILTER_NAMES.len() + 2);
    }
}

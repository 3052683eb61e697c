//! The API: filters, pages, errors, and the document that describes it.

use axum::http::{Method, StatusCode};
use serde_json::Value;
use whence_store::row::FIELD_NAMES;

use crate::events::{HOUR, by, failed_login, gap, query, server, watched};
use crate::harness::Service;

#[tokio::test]
async fn events_are_paged_with_the_fields_of_the_design() {
    let mut events: Vec<_> = (1..=7).map(|number| query(number, "SELECT 1")).collect();
    events.push(by("other", "10.0.1.9", query(8, "SELECT 2")));
    let service = Service::new("web_api", &events, &[watched("db1", 0, 3600)]).await;
    let mut seen = Vec::new();
    let mut address = format!("/api/v1/events?{HOUR}&limit=3&user=shop_app");
    loop {
        let answer = service.get_with_token("viewer", &address).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let body = answer.json();
        let page = body["events"].as_array().unwrap();
        seen.extend(page.iter().map(|event| event["sequence"].as_u64().unwrap()));
        let names: Vec<&String> = page[0].as_object().unwrap().keys().collect();
        let mut expected = FIELD_NAMES.to_vec();
        expected.sort_unstable();
        let mut found = names;
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(body["coverage"]["complete"], true);
        let Some(next) = body["next_cursor"].as_str() else { break };
        address = format!("/api/v1/events?{HOUR}&limit=3&user=shop_app&cursor={next}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);

    let id = query(8, "").id();
    let text = service.get_with_token("viewer", &format!("/api/v1/events/{id}")).await.text;
    let places: Vec<usize> =
        FIELD_NAMES.iter().map(|name| text.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "the fields are in another order than that of the exports");
    let event = service.get_with_token("viewer", &format!("/api/v1/events/{id}")).await.json();
    assert_eq!((event["user"].as_str(), event["sql_text"].as_str()), (Some("other"), Some("SELECT 2")));
    assert_eq!(event["started_at"], "2026-11-23T12:00:08.000000000Z");
    let missing =
        service.get_with_token("viewer", "/api/v1/events/0198c0de-0000-7000-8000-000000000000").await;
    assert_eq!(
        (missing.status, missing.json()["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("no_such_event"))
    );
}

#[tokio::test]
async fn the_other_questions_are_answered() {
    let events = [query(1, "SELECT 1"), failed_login(2, "intruder"), gap(3, 5)];
    let service = Service::new("web_api_more", &events, &[watched("db1", 0, 1800)]).await;
    let get = async |address: String| {
        let answer = service.get_with_token("auditor", &address).await;
        assert_eq!(answer.status, StatusCode::OK, "{address}: {}", answer.text);
        answer.json()
    };
    let histogram = get(format!("/api/v1/histogram?{HOUR}&buckets=4")).await;
    let first = &histogram["buckets"][0];
    assert_eq!(histogram["buckets"].as_array().unwrap().len(), 4);
    assert_eq!(
        (first["ok"].as_u64(), first["error"].as_u64(), first["lost"].as_u64()),
        (Some(1), Some(1), Some(5))
    );

    let report = get(format!("/api/v1/report?{HOUR}")).await;
    assert_eq!(report["totals"]["failed_logins"], 1);
    assert_eq!(report["failed_logins"][0]["user"], "intruder");
    assert_eq!(report["access"].as_array().unwrap().len(), 2);

    let instance = server("db1").instance.to_string();
    let coverage = get(format!("/api/v1/coverage?{HOUR}&instance={instance}")).await;
    let now = whence_model::Timestamp::now();
    let is_past = now > crate::events::NOON.plus_ns(3600 * crate::events::SECOND);
    assert_eq!(coverage["complete"], !is_past);
    assert_eq!(coverage["instances"][0]["watched"][0]["to"], "2026-11-23T12:30:00.000000000Z");

    let instances = get("/api/v1/instances".into()).await;
    assert_eq!(instances["instances"][0]["instance_id"], instance.as_str());
    assert_eq!(instances["instances"][0]["server_ip"], "127.0.0.1");
}

#[tokio::test]
async fn errors_have_a_code_a_message_and_the_request_id() {
    let service = Service::new("web_api_errors", &[], &[]).await;
    for (address, says) in [
        ("/api/v1/events?from=yesterday", "from \"yesterday\" is no time; give one such as"),
        ("/api/v1/events?usr=a", "usr is not known; known are user, client_host, instance"),
        ("/api/v1/events?limit=0", "limit \"0\" is no number from 1 to 1000"),
        ("/api/v1/events?from=-1h&to=-2h", "is not before the end"),
        ("/api/v1/histogram?buckets=0", "buckets is no number from 1 to 120"),
        ("/api/v1/coverage?user=a", "user is not known; known are instance, host, from, to"),
        ("/api/v1/instances?a=b", "a is not known"),
        ("/export.csv?limit=5", "limit is not known"),
    ] {
        let answer = service.get_with_token("auditor", address).await;
        let body = answer.json();
        assert_eq!((answer.status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_query")));
        assert!(body["message"].as_str().unwrap().contains(says), "{address}: {body}");
        assert_eq!(body["request_id"].as_str().unwrap(), answer.header("x-request-id"));
    }
    for headers in [&[][..], &[("authorization", "Bearer whence_wrong")], &[("authorization", "Basic eDp5")]]
    {
        let answer = service.call(Method::GET, "/api/v1/events", headers).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
        assert_eq!(answer.json()["code"], "token_needed");
    }
    let cookie = service.sign_in("viewer").await;
    let as_token = format!("Bearer {}", cookie.split_once('=').unwrap().1);
    let headers = [("authorization", as_token.as_str())];
    let answer = service.call(Method::GET, "/api/v1/events", &headers).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let answer = service.call(Method::GET, "/api/v2/events", &[]).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")));
    let answer = service.call(Method::POST, "/api/v1/events", &[]).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD"));
}

#[tokio::test]
async fn the_document_describes_what_is_answered() {
    let event = query(1, "SELECT 1");
    let service = Service::new("web_openapi", std::slice::from_ref(&event), &[watched("db1", 0, 3600)]).await;
    let document = service.call(Method::GET, "/api/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 13);
    let export = service.get_with_token("auditor", &format!("/export.csv?{HOUR}")).await;
    for (path, operations) in paths {
        let id = event.id().to_string();
        let id = if path.starts_with("/exports/") { export.header("x-request-id") } else { &id };
        let address = path.replace("{id}", id);
        let answer = service.get_with_token("auditor", &address).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let content = operations["get"]["responses"]["200"]["content"].as_object().unwrap();
        let (content_type, schema) = content.iter().next().unwrap();
        assert!(answer.header("content-type").starts_with(content_type.as_str()), "{path}");
        if content_type == "application/json" {
            assert_fits(&document, &schema["schema"], &answer.json(), path);
        }
        for parameter in operations["get"]["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "query" {
                let answer = service.get_with_token("auditor", &format!("{path}?{name}=%00")).await;
                assert!(!answer.text.contains("is not known"), "{path}: {name}");
            }
        }
    }
}

/// Checks a value against the parts of JSON Schema that the document uses.
fn assert_fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        return assert_fits(document, &document["components"]["schemas"][name], value, place);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|allowed| allowed == kind),
        allowed => allowed == kind,
    };
    assert!(allowed, "{place}: {value} is not {}", schema["type"]);
    if let Value::Array(items) = value {
        for item in items {
            assert_fits(document, &schema["items"], item, place);
        }
    }
    if let (Value::Object(fields), Some(properties)) = (value, schema["properties"].as_object()) {
        for name in schema["required"].as_array().unwrap() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{place}: {name} is missing");
        }
        for (name, field) in fields {
            let known = properties.get(name).unwrap_or_else(|| panic!("{place}: {name} is not described"));
            assert_fits(document, known, field, &format!("{place}.{name}"));
        }
    }
}

//! A service over a database of its own, and somebody who uses it.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use scraper::{Html, Selector};
use serde_json::Value;
use tower::ServiceExt;
use whence_model::{Coverage, Event};
use whence_store::{ReadRow, Store};
use whence_testkit::TestDatabase;
use whence_web::people::{self, Role};
use whence_web::{WebConfig, router};

use crate::events::store_all;

pub const PASSWORD: &str = "correct horse battery";

pub struct Service {
    pub store: Store,
    pub router: Router,
    /// Where all of it is.
    pub database: TestDatabase,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    pub text: String,
}

impl Service {
    /// A service over these events, with the accounts `viewer`, `auditor` and `admin`.
    pub async fn new(test: &str, events: &[Event], coverage: &[Coverage]) -> Self {
        let database = TestDatabase::new(test).await;
        let store = database.store.clone();
        store_all(&store, events, coverage).await;
        for role in Role::ALL {
            people::add(&store, role.as_str(), &PASSWORD.into(), *role).await.unwrap();
        }
        let router = router(WebConfig::default(), store.clone());
        Self { store, router, database }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, bytes, text }
    }

    /// Signs in with the right password; the answer is the cookie.
    pub async fn sign_in(&self, name: &str) -> String {
        let answer = self.try_sign_in(name, PASSWORD, "10.9.9.9").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.cookie().unwrap()
    }

    pub async fn try_sign_in(&self, name: &str, password: &str, address: &str) -> Answer {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("name", name)
            .append_pair("password", password)
            .append_pair("next", "/history?user=a")
            .finish();
        let mut request = Request::post("/sign-in")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(form))
            .unwrap();
        let peer = SocketAddr::new(address.parse().unwrap(), 50_000);
        request.extensions_mut().insert(ConnectInfo(peer));
        self.send(request).await
    }

    /// Gets an address with a session's cookie.
    pub async fn get(&self, cookie: &str, address: &str) -> Answer {
        let request = Request::get(address).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
        self.send(request).await
    }

    /// Gets an address with a new token of `person`.
    pub async fn get_with_token(&self, person: &str, address: &str) -> Answer {
        let token = people::issue_token(&self.store, person, "test").await.unwrap();
        let authorization = format!("Bearer {token}");
        let request =
            Request::get(address).header(header::AUTHORIZATION, authorization).body(Body::empty()).unwrap();
        self.send(request).await
    }

    pub async fn call(&self, method: Method, address: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Takes a table away.
    pub async fn drop_table(&self, table: &str) {
        use secrecy::ExposeSecret;

        let options = self.database.options();
        let address = format!("{}/?database={}", options.url, options.database);
        let request = reqwest::Client::new()
            .post(address)
            .basic_auth(options.user, Some(options.password.expose_secret()))
            .body(format!("DROP TABLE {table} SYNC"));
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// What was written to the audit of reads, oldest first.
    pub async fn reads(&self) -> Vec<ReadRow> {
        let now = whence_model::Timestamp::now();
        let window = whence_store::read::Window {
            from: now.plus_ns(-3_600_000_000_000),
            to: now.plus_ns(1_000_000_000),
        };
        let mut reads = self.store.reads(window, 1000).await.unwrap();
        reads.reverse();
        reads
    }
}

impl Answer {
    /// `name=value` of the cookie that was set.
    pub fn cookie(&self) -> Option<String> {
        let cookie = self.headers.get(header::SET_COOKIE)?.to_str().ok()?;
        cookie.split(';').next().map(str::to_owned)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn html(&self) -> Html {
        Html::parse_document(&self.text)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The text of every element that `selector` finds, with single spaces.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let selector = Selector::parse(selector).unwrap();
        let texts = self.html();
        let texts = texts.select(&selector).map(|element| element.text().collect::<String>());
        texts.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// The attribute `name` of the first element that `selector` finds.
    pub fn attribute(&self, selector: &str, name: &str) -> Option<String> {
        let selector = Selector::parse(selector).unwrap();
        self.html().select(&selector).next()?.value().attr(name).map(str::to_owned)
    }
}

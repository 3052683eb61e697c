//! The style, the script and the icon, under addresses that change with their contents.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::problem::Problem;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    contents: &'static str,
}

const ASSETS: &[Asset] = &[
    Asset {
        name: "style.css",
        content_type: "text/css; charset=utf-8",
        contents: include_str!("../../static/style.css"),
    },
    Asset {
        name: "app.js",
        content_type: "text/javascript; charset=utf-8",
        contents: include_str!("../../static/app.js"),
    },
    Asset {
        name: "icon.svg",
        content_type: "image/svg+xml",
        contents: include_str!("../../static/icon.svg"),
    },
];

/// Begins the SHA-256 of all of them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in ASSETS {
        hash.update(asset.contents);
    }
    hex::encode(&hash.finalize()[..8])
});

/// The address of the asset `name` in this version.
pub fn url(name: &str) -> String {
    format!("/static/{}/{name}", *VERSION)
}

pub async fn get(Path((version, name)): Path<(String, String)>) -> Result<Response, Problem> {
    if version != *VERSION {
        return Err(Problem::NotFound);
    }
    answer(&name, "public, max-age=31536000, immutable")
}

/// What browsers ask for by themselves.
pub async fn icon() -> Result<Response, Problem> {
    answer("icon.svg", "public, max-age=86400")
}

fn answer(name: &str, cache_control: &'static str) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or(Problem::NotFound)?;
    let headers = [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, cache_control)];
    Ok((headers, asset.contents).into_response())
}

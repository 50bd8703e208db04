//! A part of a list: how it is asked for, and how it is shown.

use axum::Json;
use http::Uri;
use serde::Serialize;
use tonic::Streaming;
use utoipa::{IntoParams, ToSchema};

use super::refusal;
use crate::{body::Query, failure::Refusal};

/// The largest page: one less than the store gives, as one more tells whether there are more.
const PAGE: u32 = 999;
/// A page where nothing was said.
const PAGE_DEFAULT: u32 = 100;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T: ToSchema> {
    /// `list`.
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
    /// Ask for what comes `after` it.
    #[schema(required)]
    last_id: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the document: [`Page`] reads them by name")]
pub(in crate::door) struct Paging {
    /// How many.
    #[param(minimum = 1, maximum = 999, default = 100)]
    limit: Option<u32>,
    /// What comes after the item with this id.
    after: Option<String>,
}

/// Which part of a list is wanted.
pub(in crate::door) struct Page {
    pub(in crate::door) limit: u32,
    pub(in crate::door) after: String,
}

impl Page {
    pub(in crate::door) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let query = Query::of(uri);
        let limit = query.value("limit", "a number")?.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE).contains(&limit) {
            return Err(Refusal::invalid(
                "limit",
                format!("limit: expected a number from 1 to {PAGE}, got {limit}"),
            ));
        }
        Ok(Self {
            limit,
            after: query.text("after").unwrap_or_default().to_owned(),
        })
    }

    pub(in crate::door) async fn object<T, O: ToSchema>(
        &self,
        mut found: Streaming<T>,
        object: impl Fn(T) -> (String, O),
    ) -> Result<Json<List<O>>, Refusal> {
        let limit = self.limit as usize;
        let (mut data, mut last, mut has_more) = (Vec::new(), None, false);
        while let Some(item) = found.message().await.map_err(|status| refusal(&status))? {
            if data.len() == limit {
                has_more = true;
                break;
            }
            let (id, item) = object(item);
            last = Some(id);
            data.push(item);
        }
        Ok(Json(List {
            object: "list",
            data,
            has_more,
            last_id: last,
        }))
    }
}

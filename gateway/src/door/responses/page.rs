//! A page of items, as the Responses and the Conversations API ask for it and show it.

use http::Uri;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::{body::Query, failure::Refusal};

/// The largest page, and the one where nothing was said.
const PAGE: usize = 100;
const PAGE_DEFAULT: usize = 20;

/// How they may be asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the document only: the query is read field by field")]
pub(crate) struct ItemPaging {
    /// The most items. Missing: 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `desc` (the newest first) or `asc`.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// The id of the item after which the page begins.
    after: Option<String>,
}

/// Which items are wanted.
#[derive(Debug)]
pub(crate) struct ItemPage {
    pub(crate) limit: usize,
    pub(crate) newest_first: bool,
    /// The item after which the page begins.
    pub(crate) after: Option<String>,
}

impl ItemPage {
    /// Those that a query asks for: `limit`, `order` and `after`.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let query = Query::of(uri);
        let limit = query.value("limit", "a number")?.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE).contains(&limit) {
            let message = format!("limit: expected a number from 1 to {PAGE}, got {limit}");
            return Err(Refusal::invalid("limit", message));
        }
        let newest_first = match query.text("order") {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return Err(Refusal::invalid("order", format!("order: expected asc or desc, got {other:?}"))),
        };
        Ok(Self {
            limit,
            newest_first,
            after: query.text("after").map(str::to_owned),
        })
    }

    /// The page with these items; one more than it holds says that there are more.
    pub(crate) fn object(&self, mut items: Vec<Value>) -> Value {
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        list(items, has_more)
    }
}

/// A list of items.
pub(crate) fn list(items: Vec<Value>, has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.map_or_else(|| "".into(), |item| item["id"].clone());
    let (first, last) = (id(items.first()), id(items.last()));
    json!({"object": "list", "data": Value::from(items), "first_id": first, "last_id": last, "has_more": has_more})
}

//! Lists: a plain JSON array, with what is next and how many there are in the headers.

use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use domain::{ExecutionId, Time};
use http::{HeaderName, HeaderValue, Uri, header};
use serde::Serialize;
use store::{Page, Total};

use super::{Answer, ApiError, Code};

/// How many items a list has when nothing is said.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// How many it may have.
pub(crate) const MAX_LIMIT: usize = 1000;

/// Checks a `limit`.
///
/// # Errors
/// It is out of range.
pub(crate) fn limit(given: Option<usize>) -> Answer<usize> {
    match given {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(limit) => {
            let message =
                format!("query parameter limit: {limit} is out of range; it is 1 to {MAX_LIMIT}");
            Err(ApiError::new(Code::InvalidRequest, message))
        }
    }
}

/// The part of a list that a caller asks for.
///
/// # Errors
/// The limit is out of range or the cursor is not one of ours.
pub(crate) fn page(given: Option<usize>, cursor: Option<&str>) -> Answer<Page> {
    Ok(Page {
        limit: limit(given)?,
        after: cursor.map(read_cursor).transpose()?,
    })
}

fn read_cursor(text: &str) -> Answer<(Time, String)> {
    let (nanos, id) = text.split_once('-').ok_or_else(bad_cursor)?;
    let nanos = i64::from_str_radix(nanos, 16).map_err(|_| bad_cursor())?;
    if id.is_empty() || id.len() > 255 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad_cursor());
    }
    Ok((DateTime::from_timestamp_nanos(nanos), id.to_owned()))
}

/// As [`page`], for lists of executions: the store reads the id in the cursor as one.
///
/// # Errors
/// As there.
pub(crate) fn execution_page(given: Option<usize>, cursor: Option<&str>) -> Answer<Page> {
    let page = page(given, cursor)?;
    match &page.after {
        Some((_, id)) if id.parse::<ExecutionId>().is_err() => Err(bad_cursor()),
        _ => Ok(page),
    }
}

/// Says that a cursor is none of ours.
pub(crate) fn bad_cursor() -> ApiError {
    let message =
        "query parameter cursor: it is not one that this list gave; leave it out to begin anew";
    ApiError::new(Code::InvalidRequest, message)
}

/// The cursor that goes on after a row.
pub(crate) fn cursor(at: Time, id: &str) -> String {
    format!("{:x}-{id}", at.timestamp_nanos_opt().unwrap_or_default())
}

/// A list's answer.
pub(crate) struct Listed<T> {
    items: Vec<T>,
    next: Option<String>,
    total: Option<Total>,
}

impl<T> Listed<T> {
    /// A list as it is; `next` is the address of its next part.
    pub(crate) const fn new(items: Vec<T>, next: Option<String>, total: Option<Total>) -> Self {
        Self { items, next, total }
    }

    /// The part of a list that is in memory as a whole, sorted by `name`: after `cursor`, at most `limit`.
    pub(crate) fn of_all(
        all: Vec<T>,
        name: fn(&T) -> &str,
        given: Option<usize>,
        cursor: Option<&str>,
        uri: &Uri,
    ) -> Answer<Self> {
        let limit = limit(given)?;
        let total = Total::exactly(all.len() as u64);
        let mut rest = all
            .into_iter()
            .filter(|item| cursor.is_none_or(|after| name(item) > after));
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let next = match (items.last(), rest.next()) {
            (Some(last), Some(_)) => Some(next_address(uri, name(last))),
            _ => None,
        };
        Ok(Self::new(items, next, Some(total)))
    }

    /// The same list with each item as it is shown.
    pub(crate) fn map<U>(self, show: impl FnMut(T) -> U) -> Listed<U> {
        let Self { items, next, total } = self;
        Listed::new(items.into_iter().map(show).collect(), next, total)
    }
}

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        let headers = response.headers_mut();
        let next = self.next.map(|next| format!("<{next}>; rel=\"next\""));
        if let Some(link) = next.and_then(|link| HeaderValue::try_from(link).ok()) {
            headers.insert(header::LINK, link);
        }
        if let Some(total) = self.total {
            headers.insert(
                HeaderName::from_static("x-total-count"),
                HeaderValue::from(total.count),
            );
            if !total.is_exact {
                headers.insert(
                    HeaderName::from_static("x-total-count-is"),
                    HeaderValue::from_static("at-least"),
                );
            }
        }
        response
    }
}

/// The address of a request with another cursor.
pub(crate) fn next_address(uri: &Uri, cursor: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let others = query
        .split('&')
        .filter(|part| !part.is_empty() && !part.starts_with("cursor="));
    let mut parts: Vec<String> = others.map(str::to_owned).collect();
    parts.push(format!("cursor={cursor}"));
    format!("{}?{}", uri.path(), parts.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_others_are_refused() {
        let at = DateTime::from_timestamp_nanos(1_700_000_000_123_456_789);
        let text = cursor(at, "0190-x");
        assert_eq!(read_cursor(&text).unwrap(), (at, "0190-x".to_owned()));
        for bad in ["", "x", "12", "-", "zz-1", "12-é", "12- "] {
            assert!(read_cursor(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_next_address_keeps_the_filters() {
        let uri = "/tasks?limit=2&cursor=old&status=failed".parse().unwrap();
        assert_eq!(
            next_address(&uri, "new"),
            "/tasks?limit=2&status=failed&cursor=new"
        );
    }
}

//! Pages of lists, and the `Link` header that refers from one page to the next.

use axum::http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;

/// The requested page, as it is written in the query.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PageQuery {
    per_page: Option<String>,
    page: Option<String>,
}

/// A page of a list.
pub(super) struct Page {
    number: usize,
    size: usize,
}

impl PageQuery {
    /// Returns the requested page by GitHub's rule: 30 entries per page by default and 100 at most. A value that is not a
    /// number is ignored.
    pub(super) fn page(&self) -> Page {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<usize>().ok());
        Page {
            number: number(&self.page).unwrap_or(1).clamp(1, 1_000_000),
            size: number(&self.per_page).unwrap_or(30).clamp(1, 100),
        }
    }
}

impl Page {
    pub(super) fn skip(&self) -> usize {
        (self.number - 1) * self.size
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns the `Link` header for a list of `total` entries. `url` is the list's address without the page. The result
    /// is empty if one page holds all entries.
    pub(super) fn links(&self, url: &str, total: usize) -> HeaderMap {
        let last = total.div_ceil(self.size).max(1);
        let joint = if url.contains('?') { '&' } else { '?' };
        let link = |page: usize, rel: &str| {
            format!("<{url}{joint}per_page={}&page={page}>; rel=\"{rel}\"", self.size)
        };
        let mut links = Vec::new();
        if self.number > 1 {
            links.push(link((self.number - 1).min(last), "prev"));
        }
        if self.number < last {
            links.push(link(self.number + 1, "next"));
            links.push(link(last, "last"));
        }
        if self.number > 1 {
            links.push(link(1, "first"));
        }
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&links.join(", "))
            && !links.is_empty()
        {
            headers.insert(header::LINK, value);
        }
        headers
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn links(per_page: &str, page: &str, total: usize) -> Option<String> {
        let query = PageQuery { per_page: Some(per_page.into()), page: Some(page.into()) };
        let headers = query.page().links("http://h/list?name=a", total);
        headers.get(header::LINK).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn one_page_needs_no_links() {
        assert_eq!(links("30", "1", 30), None);
        assert_eq!(links("30", "1", 0), None);
    }

    #[test]
    fn pages_lead_to_the_next_and_back() {
        let first = links("10", "1", 25).unwrap();
        assert!(first.contains("<http://h/list?name=a&per_page=10&page=2>; rel=\"next\""), "{first}");
        assert!(first.contains("page=3>; rel=\"last\"") && !first.contains("prev"), "{first}");
        let last = links("10", "3", 25).unwrap();
        assert!(last.contains("page=2>; rel=\"prev\"") && !last.contains("next"), "{last}");
    }

    #[test]
    fn nonsense_counts_as_not_said() {
        let query = PageQuery { per_page: Some("-7".into()), page: Some("x".into()) };
        assert_eq!((query.page().skip(), query.page().size()), (0, 30));
        let query = PageQuery { per_page: Some("5000".into()), page: Some("0".into()) };
        assert_eq!((query.page().skip(), query.page().size()), (0, 100));
    }
}

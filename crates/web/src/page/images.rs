//! The images and the templates of this host.

use axum::extract::State;
use dayfly_fleet::fact::Moment;
use dayfly_image::{Image, Store};
use dayfly_vm::template::{Template, TemplateStore};
use maud::{Markup, html};

use super::layout::{Place, page, table};
use super::text::{foreign, since, size};
use super::{Answer, Desk, unreadable};

/// Characters of an id.
const ID_LENGTH: usize = 12;

pub(super) async fn show(State(desk): State<Desk>) -> Answer {
    desk.read(|published| {
        let (store, now_ms) = (Store::new(&published.state), Moment::now().ms());
        let images = store.list().map_err(unreadable)?;
        let images: Vec<(Vec<String>, Image)> =
            images.into_iter().map(|image| (store.names_of(&image), image)).collect();
        let templates = TemplateStore::new(&published.state).list().map_err(unreadable)?;
        let main = html! {
            h1 { "Images and templates" }
            h2 { "Templates" }
            (template_table(&templates, now_ms))
            h2 { "Images" }
            (image_table(&images, now_ms))
        };
        Ok(page("Images", Place::Images, &main))
    })
    .await
}

fn short(id: &str) -> &str {
    id.get(..ID_LENGTH).unwrap_or(id)
}

fn ms(at_s: i64) -> u64 {
    u64::try_from(at_s).unwrap_or_default().saturating_mul(1000)
}

fn template_table(templates: &[Template], now_ms: u64) -> Markup {
    if templates.is_empty() {
        return html! { p.none { "There is no template: machines are booted, or the first one builds it." } };
    }
    let rows = html! {
        @for template in templates {
            @let (manifest, counts) = (template.manifest(), template.counts());
            @let starts = counts.forks + counts.failures;
            tr {
                th scope="row" { (short(manifest.id.as_str())) }
                td { (short(&manifest.image)) }
                td.number { (manifest.cpus) }
                td.number { (manifest.memory_mib) " MiB" }
                td.number { (size(template.bytes())) }
                td { (since(ms(manifest.created_s), now_ms)) }
                td.number { (counts.forks) }
                td.number { @if let Some(hits) = (counts.forks * 100).checked_div(starts) { (hits) " %" } @else { "-" } }
            }
        }
    };
    table("Templates", &["Template", "Image", "CPUs", "Memory", "On disk", "Age", "Forks", "Hits"], &rows)
}

fn image_table(images: &[(Vec<String>, Image)], now_ms: u64) -> Markup {
    if images.is_empty() {
        return html! { p.none { "There is no image." } };
    }
    let rows = html! {
        @for (names, image) in images {
            @let manifest = image.manifest();
            tr {
                th scope="row" { (short(&manifest.id)) }
                td { @if manifest.origin.is_some() { (foreign(&names.join(", "))) } @else { "built here" } }
                td { (foreign(&manifest.suite)) }
                td { (foreign(&manifest.kernel)) }
                td.number { (size(manifest.bytes())) }
                td { (since(ms(manifest.created_s), now_ms)) }
            }
        }
    };
    table("Images", &["Image", "Names", "System", "Kernel", "Size", "Age"], &rows)
}

//! Pages of the documentation, of which tests try what stands there.

/// Blocks of a page in this language, in their order.
pub fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    page.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or(rest)).collect()
}

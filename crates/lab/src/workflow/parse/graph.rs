//! Checks that needs form no cycle.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::super::model::Job;
use super::Reader;

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    OnPath,
    Done,
}

impl Reader {
    /// Leaves one remark on each cycle, at the job through which the walk entered it.
    pub(super) fn check_needs(&mut self, jobs: &IndexMap<String, Job>) {
        let mut marks: HashMap<&str, Mark> = HashMap::new();
        for start in jobs.keys() {
            self.walk(start, jobs, &mut marks);
        }
    }

    /// Walks depth first, with an explicit stack because a file may chain many jobs.
    fn walk<'a>(
        &mut self,
        start: &'a str,
        jobs: &'a IndexMap<String, Job>,
        marks: &mut HashMap<&'a str, Mark>,
    ) {
        if marks.contains_key(start) {
            return;
        }
        marks.insert(start, Mark::OnPath);
        let mut path: Vec<(&'a str, usize)> = vec![(start, 0)];
        while let Some((id, next)) = path.last_mut() {
            let id: &'a str = id;
            let need = jobs.get(id).and_then(|job| job.needs.get(*next));
            *next += 1;
            let Some(need) = need else {
                marks.insert(id, Mark::Done);
                path.pop();
                continue;
            };
            match marks.get(need.as_str()) {
                Some(Mark::Done) => {}
                Some(Mark::OnPath) => self.remark_circle(need, &path, jobs),
                None => {
                    marks.insert(need, Mark::OnPath);
                    path.push((need, 0));
                }
            }
        }
    }

    fn remark_circle(&mut self, need: &str, path: &[(&str, usize)], jobs: &IndexMap<String, Job>) {
        let start = path.iter().position(|(id, _)| *id == need).unwrap_or(0);
        let mut circle: Vec<&str> = path[start..].iter().map(|(id, _)| *id).collect();
        circle.push(need);
        let at = jobs.get(need).map(|job| job.at);
        self.remark(
            at,
            &format!("jobs.{need}.needs"),
            format!("the jobs need each other: {}", circle.join(" -> ")),
        );
    }
}

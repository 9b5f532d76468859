//! Who is linked to whom: everybody up to [`MESH_MAX`] servers, a random graph of [`DEGREE`] links a
//! server past that.

use std::collections::{BTreeSet, VecDeque};

use chatty_core::rng::Rng;

/// A full mesh has at most so many servers.
pub const MESH_MAX: usize = 64;
/// Links of each server in a larger cluster.
pub const DEGREE: usize = 8;

/// For each server the servers it is linked to, in order.
pub fn links(servers: usize, rng: &mut Rng) -> Vec<BTreeSet<usize>> {
    if servers <= MESH_MAX {
        return (0..servers).map(|a| (0..servers).filter(|b| *b != a).collect()).collect();
    }
    loop {
        let graph = shuffled(servers, rng);
        if is_connected(&graph) {
            return graph;
        }
    }
}

/// A ring in which everybody knows the next four on both sides, with the ends of its links swapped
/// in pairs until nothing is left of the ring: all graphs of this degree come about.
fn shuffled(servers: usize, rng: &mut Rng) -> Vec<BTreeSet<usize>> {
    let mut graph = vec![BTreeSet::new(); servers];
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for a in 0..servers {
        for step in 1..=DEGREE / 2 {
            edges.push((a, (a + step) % servers));
        }
    }
    for &(a, b) in &edges {
        graph[a].insert(b);
        graph[b].insert(a);
    }
    let mut draw = |end: usize| rng.below(end as u64) as usize;
    for _ in 0..edges.len() * 10 {
        let (one, other) = (draw(edges.len()), draw(edges.len()));
        let ((a, b), (c, d)) = (edges[one], edges[other]);
        let distinct = BTreeSet::from([a, b, c, d]).len() == 4;
        if !distinct || graph[a].contains(&d) || graph[c].contains(&b) {
            continue;
        }
        for (x, y) in [(a, b), (c, d)] {
            graph[x].remove(&y);
            graph[y].remove(&x);
        }
        for (x, y) in [(a, d), (c, b)] {
            graph[x].insert(y);
            graph[y].insert(x);
        }
        (edges[one], edges[other]) = ((a, d), (c, b));
    }
    graph
}

fn is_connected(graph: &[BTreeSet<usize>]) -> bool {
    let mut seen = vec![false; graph.len()];
    let mut next = VecDeque::from([0]);
    seen[0] = true;
    while let Some(at) = next.pop_front() {
        for &to in &graph[at] {
            if !std::mem::replace(&mut seen[to], true) {
                next.push_back(to);
            }
        }
    }
    seen.into_iter().all(|seen| seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_clusters_are_full_meshes() {
        let graph = links(MESH_MAX, &mut Rng::new(1));
        assert!(graph.iter().all(|links| links.len() == MESH_MAX - 1));
    }

    #[test]
    fn large_ones_have_eight_links_a_server_both_ways_and_reach_everybody() {
        for servers in [65, 200, 1000] {
            let graph = links(servers, &mut Rng::new(7));
            for (a, links) in graph.iter().enumerate() {
                assert_eq!(links.len(), DEGREE, "server {a} of {servers}");
                assert!(links.iter().all(|b| *b != a && graph[*b].contains(&a)));
            }
            assert!(is_connected(&graph), "{servers}");
        }
    }

    #[test]
    fn two_seeds_draw_two_graphs_and_neither_is_the_ring() {
        let [one, other] = [1, 2].map(|seed| links(200, &mut Rng::new(seed)));
        assert_ne!(one, other);
        let near = one.iter().enumerate().filter(|(a, l)| l.contains(&((a + 1) % 200))).count();
        assert!(near < 40, "{near} of 200 still know the next one");
    }
}

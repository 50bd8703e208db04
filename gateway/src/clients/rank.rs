//! The home of an answer: the router that ranks first for its name. Every gateway must come to the same order, so the hash is
//! written out here (FNV-1a, <https://www.rfc-editor.org/rfc/rfc9923>, finished by splitmix64) and never changed.

/// The rank of `router` for the answer `stream_id`: the highest is its home (rendezvous hashing).
pub(crate) fn rank(stream_id: &str, router: &str) -> u64 {
    let hash = [router.as_bytes(), &[0], stream_id.as_bytes()]
        .into_iter()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_of_a_router_is_the_same_in_every_build() {
        assert_eq!(rank("s-1", "127.0.0.1:50051"), 4_959_432_565_975_491_714);
    }

    #[test]
    fn answers_spread_evenly_and_only_those_of_a_lost_router_move() {
        let routers: Vec<String> = (0..4).map(|n| format!("10.0.0.{n}:50051")).collect();
        let home = |id: &str, routers: &[String]| routers.iter().max_by_key(|router| rank(id, router)).cloned();
        let mut counts = std::collections::HashMap::new();
        for n in 0..4000 {
            let id = format!("answer-{n}");
            let before = home(&id, &routers).unwrap();
            let after = home(&id, &routers[..3]).unwrap();
            assert!(before == after || before == routers[3]);
            *counts.entry(before).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}

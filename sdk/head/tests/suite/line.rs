use proptest::prelude::*;
use ssl_edge_head::line::{
    Counters, Decision, GateQueue, GateTiming, Handshake, HandshakeTiming, Inputs, Late, Outputs,
    Policy, Vote,
};
use ssl_edge_head::{Nearest, Verdict};

const OFF: Outputs = Outputs {
    ready: false,
    busy: false,
    result_valid: false,
    result_ok: false,
    result_unknown: false,
    fault: false,
};
const READY: Outputs = Outputs { ready: true, ..OFF };
const BUSY: Outputs = Outputs { busy: true, ..OFF };

fn lines(enable: bool, trigger: bool) -> Inputs {
    Inputs { enable, trigger }
}

fn ready(start: u32) -> Handshake {
    let mut handshake = Handshake::new(HandshakeTiming {
        timeout: 100,
        hold: 10,
    });
    assert_eq!(handshake.outputs(), OFF);
    handshake.poll(start, lines(true, false));
    assert_eq!(handshake.outputs(), READY);
    handshake
}

/// From anywhere on the clock, also across its end.
#[test]
fn a_part_goes_through_the_handshake() {
    for start in [0, 5000, u32::MAX - 60, u32::MAX - 5] {
        let at = |ticks: u32| start.wrapping_add(ticks);
        let mut handshake = ready(at(0));
        assert_eq!(handshake.poll(at(1), lines(true, true)), Some(1));
        assert_eq!(handshake.outputs(), BUSY);
        assert_eq!(handshake.poll(at(50), lines(true, true)), None);
        assert!(handshake.finish(at(60), 1, Decision::Accept));
        let good = Outputs {
            result_valid: true,
            result_ok: true,
            ..OFF
        };
        assert_eq!(handshake.outputs(), good);
        handshake.poll(at(90), lines(true, true));
        assert_eq!(handshake.outputs(), good, "held while the trigger is high");
        handshake.poll(at(91), lines(true, false));
        assert_eq!(handshake.outputs(), READY);
        assert_eq!(handshake.poll(at(92), lines(true, true)), Some(2));
        assert!(handshake.finish(at(93), 2, Decision::Unknown));
        assert_eq!(
            handshake.outputs(),
            Outputs {
                result_valid: true,
                result_unknown: true,
                ..OFF
            }
        );
        handshake.poll(at(94), lines(true, false));
        assert!(
            handshake.outputs().result_valid,
            "shown for ten ticks at least"
        );
        handshake.poll(at(103), lines(true, false));
        assert_eq!(handshake.outputs(), READY);
        assert_eq!(
            handshake.counters(),
            Counters {
                started: 2,
                ..Counters::default()
            }
        );
    }
}

#[test]
fn a_trigger_without_answer_ends_as_a_fault() {
    let mut handshake = ready(0);
    assert_eq!(handshake.poll(10, lines(true, true)), Some(1));
    handshake.poll(109, lines(true, true));
    assert_eq!(handshake.outputs(), BUSY);
    handshake.poll(110, lines(true, true));
    assert_eq!(
        handshake.outputs(),
        Outputs {
            result_valid: true,
            fault: true,
            ..OFF
        }
    );
    assert!(!handshake.finish(111, 1, Decision::Accept), "too late");
    assert_eq!(handshake.shown(), Some(Decision::Timeout));
    assert_eq!(
        handshake.counters(),
        Counters {
            started: 1,
            timeouts: 1,
            stale: 1,
            ..Counters::default()
        }
    );
}

/// The clock is looked at before the answer: a late one is never taken because nobody polled in between.
#[test]
fn a_late_answer_is_late_without_a_poll() {
    let mut handshake = ready(0);
    handshake.poll(10, lines(true, true));
    assert!(!handshake.finish(110, 1, Decision::Accept));
    assert_eq!(handshake.shown(), Some(Decision::Timeout));
}

#[test]
fn triggers_that_find_no_ready_device_are_counted() {
    let mut handshake = ready(0);
    handshake.poll(1, lines(true, true));
    handshake.poll(2, lines(true, false));
    assert_eq!(handshake.poll(3, lines(true, true)), None);
    assert_eq!(handshake.counters().missed, 1);
    assert!(
        !handshake.finish(4, 7, Decision::Accept),
        "another inspection's answer"
    );
    assert!(handshake.finish(4, 1, Decision::Reject));
    handshake.poll(5, lines(true, false));
    assert_eq!(
        handshake.poll(6, lines(true, true)),
        None,
        "the last result is still shown"
    );
    assert_eq!(
        handshake.counters(),
        Counters {
            started: 1,
            missed: 2,
            stale: 1,
            ..Counters::default()
        }
    );
}

#[test]
fn a_trigger_that_is_high_at_the_start_is_no_part() {
    let mut handshake = Handshake::new(HandshakeTiming {
        timeout: 100,
        hold: 0,
    });
    assert_eq!(handshake.poll(0, lines(true, true)), None);
    assert_eq!(handshake.poll(1, lines(true, true)), None);
    assert_eq!(
        (handshake.outputs(), handshake.counters()),
        (READY, Counters::default())
    );
}

#[test]
fn disabling_ends_everything() {
    let mut handshake = ready(0);
    handshake.poll(1, lines(true, true));
    handshake.poll(2, lines(false, true));
    assert_eq!(handshake.outputs(), OFF);
    assert!(!handshake.finish(3, 1, Decision::Accept));
    handshake.poll(4, lines(true, true));
    assert_eq!(handshake.outputs(), READY);
    assert_eq!(
        handshake.counters(),
        Counters {
            started: 1,
            abandoned: 1,
            stale: 1,
            ..Counters::default()
        }
    );
}

fn decision() -> impl Strategy<Value = Decision> {
    prop::sample::select(vec![Decision::Accept, Decision::Unknown, Decision::Reject])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: every trigger is a started inspection or a missed one, every inspection ends in one way, and no line says good
    /// unless the last decision was.
    #[test]
    fn nothing_gets_lost(
        steps in prop::collection::vec((0u32..40, any::<bool>(), prop::bool::weighted(0.95), prop::option::of((decision(), 0u32..3))), 0..200),
        start in any::<u32>(),
    ) {
        let mut handshake = Handshake::new(HandshakeTiming { timeout: 50, hold: 20 });
        let (mut now, mut trigger_was, mut edges, mut answered, mut last) = (start, true, 0, 0, None);
        for (wait, trigger, enable, answer) in steps {
            now = now.wrapping_add(wait);
            edges += u32::from(enable && trigger && !trigger_was);
            trigger_was = trigger;
            if let Some(sequence) = handshake.poll(now, lines(enable, trigger)) {
                prop_assert_eq!(sequence, handshake.counters().started);
            }
            if let Some((decision, older)) = answer {
                let sequence = handshake.counters().started.wrapping_sub(older);
                let busy = handshake.outputs().busy;
                let taken = handshake.finish(now, sequence, decision);
                prop_assert_eq!(taken, busy && older == 0);
                if taken {
                    answered += 1;
                    last = Some(decision);
                }
            }
            let (outputs, counters) = (handshake.outputs(), handshake.counters());
            prop_assert_eq!(counters.started + counters.missed, edges);
            prop_assert_eq!(counters.started, answered + counters.timeouts + counters.abandoned + u32::from(outputs.busy));
            let states = [outputs.ready, outputs.busy, outputs.result_valid];
            prop_assert_eq!(states.iter().filter(|on| **on).count(), usize::from(enable));
            let results = [outputs.result_ok, outputs.result_unknown, outputs.fault];
            prop_assert!(results.iter().filter(|on| **on).count() <= usize::from(outputs.result_valid));
            prop_assert!(!outputs.result_ok || last == Some(Decision::Accept));
        }
    }

    /// The gate is driven exactly while some rejected part lies before it.
    #[test]
    fn the_gate_follows_the_parts(
        parts in prop::collection::vec((1u32..40, 0u32..45, decision()), 0..40),
        start in any::<u32>(),
    ) {
        let timing = GateTiming { travel: 30, pulse: 12 };
        let mut gate = GateQueue::<64>::new(timing);
        // (trigger, decided) in ticks from the start; decisions keep the order of the parts.
        let (mut trigger, mut decided) = (0, 0);
        let parts: Vec<(u32, u32, Decision)> = parts
            .into_iter()
            .map(|(gap, latency, decision)| {
                trigger += gap;
                decided = decided.max(trigger + latency);
                (trigger, decided, decision)
            })
            .collect();
        for tick in 0..trigger + 200 {
            let now = start.wrapping_add(tick);
            for (trigger, _, decision) in parts.iter().filter(|part| part.1 == tick) {
                let late = *decision != Decision::Accept && tick > trigger + timing.travel;
                let expected = if late { Err(Late) } else { Ok(()) };
                prop_assert_eq!(gate.decide(now, start.wrapping_add(*trigger), *decision), expected);
            }
            let driven = parts.iter().any(|(trigger, decided, decision)| {
                let due = trigger + timing.travel;
                *decision != Decision::Accept && *decided <= due && (due..due + timing.pulse).contains(&tick)
            });
            prop_assert_eq!(gate.drive(now), driven, "tick {}", tick);
        }
    }

    #[test]
    fn a_vote_is_the_count_of_its_window(all in prop::collection::vec(decision(), 0..30)) {
        let mut vote = Vote::<5>::new();
        for (i, decision) in all.iter().enumerate() {
            let found = vote.push(*decision);
            let expected = (i >= 4).then(|| {
                let window = &all[i - 4..=i];
                let mut counts: Vec<(usize, Decision)> = window.iter().map(|d| (window.iter().filter(|x| *x == d).count(), *d)).collect();
                counts.sort();
                counts.pop().unwrap().1
            });
            prop_assert_eq!(found, expected);
        }
        vote.clear();
        prop_assert_eq!(vote.push(Decision::Accept), None);
    }
}

#[test]
fn a_full_gate_says_so() {
    let mut gate = GateQueue::<2>::new(GateTiming {
        travel: 100,
        pulse: 1,
    });
    assert_eq!(gate.decide(0, 0, Decision::Reject), Ok(()));
    assert_eq!(gate.decide(1, 1, Decision::Timeout), Ok(()));
    assert_eq!(gate.decide(2, 2, Decision::Accept), Ok(()));
    assert_eq!(gate.decide(3, 3, Decision::Unknown), Err(Late));
}

#[test]
fn only_a_sure_verdict_on_a_good_class_is_accepted() {
    let policy = Policy::accepting(&[1, 40, 5000], 20_000);
    let verdict = |class, score, unknown| Verdict {
        class,
        score,
        unknown,
        nearest: Some(Nearest {
            row: 0,
            similarity: 0,
        }),
    };
    for (class, score, unknown, expected) in [
        (1, 20_000, false, Decision::Accept),
        (40, 32_768, false, Decision::Accept),
        (1, 19_999, false, Decision::Unknown),
        (1, 32_768, true, Decision::Unknown),
        (0, 32_768, true, Decision::Unknown),
        (0, 32_768, false, Decision::Reject),
        (5000, 32_768, false, Decision::Reject),
    ] {
        assert_eq!(
            policy.decide(&verdict(class, score, unknown)),
            expected,
            "{class} {score} {unknown}"
        );
    }
}

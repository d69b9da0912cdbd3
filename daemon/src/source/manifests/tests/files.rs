//! Files that change: what stays, what goes, and which events come of it. Texts only; real files and inotify are
//! tested in `tests/source/manifests.rs`.

use proptest::prelude::*;

use super::*;

const TWO: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: one}
---
apiVersion: v1
kind: Namespace
metadata: {name: two}
";

/// Puts texts one after another and dumps what each changed.
fn check_steps(steps: &[(&str, Option<&str>)], expected: &Expect) {
    let mut folder = Folder::default();
    let mut now = Desired::new(&folder, &[], &cluster(), &Desired::default());
    let mut out = String::new();
    for (number, (file, text)) in steps.iter().enumerate() {
        match text {
            Some(text) => folder.put(file, text),
            None => folder.remove(file),
        }
        let next = Desired::new(&folder, &[], &cluster(), &now);
        writeln!(out, "step {}:", number + 1).unwrap();
        out += &dump(&next.changes(&now));
        next.problems.iter().for_each(|problem| writeln!(out, "! {problem}").unwrap());
        now = next;
    }
    expected.assert_eq(&out);
}

#[test]
fn a_broken_file_changes_nothing_until_it_is_whole_again() {
    let less = "apiVersion: v1\nkind: Namespace\nmetadata: {name: two}\n";
    check_steps(
        &[
            ("a.yaml", Some(TWO)),
            ("a.yaml", Some(&TWO[..TWO.len() - 5])),
            ("a.yaml", Some("kind: [")),
            ("a.yaml", Some(less)),
            ("a.yaml", None),
        ],
        &expect![[r#"
            step 1:
            Namespace one
            Namespace two
            step 2:
            ! a.yaml, document 2, line 8: not YAML: unclosed bracket '{'
            step 3:
            ! a.yaml, document 1, line 1: not YAML: unclosed bracket '['
            step 4:
            delete Namespace one
            step 5:
            delete Namespace two
        "#]],
    );
}

#[test]
fn a_refused_object_leaves_the_earlier_one_standing() {
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}\n";
    check_steps(
        &[
            ("a.yaml", Some(good)),
            ("a.yaml", Some(&good.replace("port: 80", "port: 80000"))),
            ("a.yaml", Some(&good.replace("port: 80", "port: eighty"))),
            ("a.yaml", Some(&good.replace("port: 80", "port: 8080"))),
        ],
        &expect![[r#"
            step 1:
            Service default/web ClusterIP Addresses([10.96.0.9]) :80/TCP
            step 2:
            ! a.yaml, document 1, Service default/web: spec.ports[0].port: 80000 is not a port (1 to 65535)
            step 3:
            ! a.yaml, document 1, Service default/web: spec.ports[0].port: expected an integer, found "eighty"
            step 4:
            Service default/web ClusterIP Addresses([10.96.0.9]) :8080/TCP
        "#]],
    );
}

#[test]
fn the_second_of_two_takes_over_when_the_first_goes() {
    let web = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: 10.96.0.9, ports: [{{port: {port}}}]}}\n"
        )
    };
    check_steps(
        &[("b.yaml", Some(&web(80))), ("a.yaml", Some(&web(81))), ("a.yaml", None)],
        &expect![[r#"
            step 1:
            Service default/web ClusterIP Addresses([10.96.0.9]) :80/TCP
            step 2:
            Service default/web ClusterIP Addresses([10.96.0.9]) :81/TCP
            ! b.yaml, document 1, Service default/web: is in a.yaml, document 1 already
            step 3:
            Service default/web ClusterIP Addresses([10.96.0.9]) :80/TCP
        "#]],
    );
}

#[test]
fn nothing_changes_when_nothing_changes() {
    let mut folder = Folder::default();
    folder.put("a.yaml", TWO);
    let now = Desired::new(&folder, &[], &cluster(), &Desired::default());
    let next = Desired::new(&folder, &[], &cluster(), &now);
    assert_eq!(next.changes(&now), []);
}

/// What a file may say in the property below: good, other, conflicting, broken, nothing.
const TEXTS: [&str; 6] = [
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: web}, ports: [{port: 80}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.9, ports: [{port: 81}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}",
    "{apiVersion: v1, kind: Endpoints, metadata: {name: a}, subsets: [{addresses: [{ip: 192.0.2.1}]}]}",
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 0}]}}",
    "{",
];

proptest! {
    /// Whatever happened to the files, the changes add up to the lists.
    #[test]
    fn changes_lead_to_the_same_state_as_lists(
        steps in prop::collection::vec((0..3_usize, prop::option::of(0..TEXTS.len())), 1..12)
    ) {
        let mut folder = Folder::default();
        let mut now = Desired::new(&folder, &[], &cluster(), &Desired::default());
        let mut followed = model::Cluster::new();
        now.lists().into_iter().for_each(|event| followed.apply(event));
        for (file, text) in steps {
            let file = ["a.yaml", "b.yaml", "c.yaml"][file];
            match text {
                Some(text) => folder.put(file, TEXTS[text]),
                None => folder.remove(file),
            }
            let next = Desired::new(&folder, &[], &cluster(), &now);
            next.changes(&now).into_iter().for_each(|event| followed.apply(event));
            now = next;
            let mut listed = model::Cluster::new();
            now.lists().into_iter().for_each(|event| listed.apply(event));
            let (mut followed, mut listed) = ((*followed.snapshot()).clone(), (*listed.snapshot()).clone());
            (followed.generation, listed.generation) = (0, 0);
            prop_assert_eq!(followed, listed);
        }
    }

    /// The order in which files are found does not matter.
    #[test]
    fn the_order_of_reading_does_not_matter(order in Just([0_usize, 1, 2, 3]).prop_shuffle()) {
        let read = |order: [usize; 4]| {
            let mut folder = Folder::default();
            for index in order {
                folder.put(["a.yaml", "b.yaml", "c.yaml", "d.yaml"][index], TEXTS[index]);
            }
            let desired = Desired::new(&folder, &[], &cluster(), &Desired::default());
            (desired.lists(), desired.problems)
        };
        prop_assert_eq!(read(order), read([0, 1, 2, 3]));
    }
}

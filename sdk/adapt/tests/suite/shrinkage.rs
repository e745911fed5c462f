use crate::common::{Data, difference, dot, solve, wide};
use ssl_edge_adapt::head::discriminant::DiscriminantProblem;
use ssl_edge_adapt::{FitOptions, HeadKind};

struct Dense {
    /// Class means, `[C][D]`.
    means: Vec<Vec<f64>>,
    /// Within-class covariance with `N - C` degrees of freedom, `[D][D]`.
    covariance: Vec<Vec<f64>>,
    freedom: f64,
}

impl Dense {
    fn of(data: &Data) -> Self {
        let d = data.dim();
        let mut means = vec![vec![0.0; d]; data.n_classes];
        for (c, mean) in means.iter_mut().enumerate() {
            let members: Vec<usize> = (0..data.rows.len())
                .filter(|i| data.labels[*i] == c)
                .collect();
            for (j, mean) in mean.iter_mut().enumerate() {
                let sum: f64 = members.iter().map(|i| f64::from(data.rows[*i][j])).sum();
                *mean = sum / members.len() as f64;
            }
        }
        let freedom = (data.rows.len() - data.n_classes) as f64;
        let mut covariance = vec![vec![0.0; d]; d];
        for (row, &label) in data.rows.iter().zip(&data.labels) {
            for i in 0..d {
                for j in 0..d {
                    let (a, b) = (f64::from(row[i]), f64::from(row[j]));
                    covariance[i][j] += (a - means[label][i]) * (b - means[label][j]) / freedom;
                }
            }
        }
        Self {
            means,
            covariance,
            freedom,
        }
    }

    fn trace(&self) -> f64 {
        (0..self.covariance.len())
            .map(|i| self.covariance[i][i])
            .sum()
    }

    /// Chen et al. 2010, equation 23.
    fn oas(&self) -> f64 {
        let p = self.covariance.len() as f64;
        let square: f64 = self.covariance.iter().map(|row| dot(row, row)).sum();
        let trace = self.trace().powi(2);
        let above = (1.0 - 2.0 / p) * square + trace;
        let below = (self.freedom + 1.0 - 2.0 / p) * (square - trace / p);
        (above / below).min(1.0)
    }

    /// `μ_kᵀ Σ⁻¹ x - ½ μ_kᵀ Σ⁻¹ μ_k` with `Σ = (1 - ρ) S + ρ tr(S)/p I`, for each class.
    fn discriminants(&self, rho: f64, x: &[f64]) -> Vec<f64> {
        let p = self.covariance.len();
        let mut shrunk = self.covariance.clone();
        for (i, row) in shrunk.iter_mut().enumerate() {
            row.iter_mut().for_each(|s| *s *= 1.0 - rho);
            row[i] += rho * self.trace() / p as f64;
        }
        let of_mean = |mean: &Vec<f64>| {
            let column = mean.iter().map(|m| vec![*m]).collect();
            let solved: Vec<f64> = solve(shrunk.clone(), column).concat();
            dot(&solved, x) - 0.5 * dot(&solved, mean)
        };
        self.means.iter().map(of_mean).collect()
    }
}

/// Correlated features, so that there is something to shrink.
fn correlated(seed: u8, sizes: &[usize], dim: usize) -> Data {
    let mut data = Data::clusters(seed, sizes, dim, 0.3);
    for row in &mut data.rows {
        for j in 1..dim {
            row[j] = 0.8 * row[j - 1] + 0.4 * row[j];
        }
    }
    data
}

#[test]
fn lambda_is_the_oracle_approximating_shrinkage() {
    for data in [
        correlated(1, &[12, 9], 6),
        correlated(2, &[8, 7, 9], 40),
        correlated(3, &[300, 200], 5),
    ] {
        let dense = Dense::of(&data);
        let rho = dense.oas();
        assert!((0.001..0.95).contains(&rho), "{rho}");
        let p = data.dim() as f64;
        let want = dense.freedom * rho / (1.0 - rho) * dense.trace() / p;
        let support = data.support();
        let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
        assert!((problem.shrinkage() / want - 1.0).abs() < 1e-9);
        let report = data.job().fit(&FitOptions::default()).unwrap();
        assert_eq!(report.head, Some(HeadKind::Lda));
        assert!((report.lambda.unwrap() / want - 1.0).abs() < 1e-9);
    }
}

/// Probabilities of a job are a softmax of the textbook discriminants of the shrunk covariance, whose scale the temperature takes up.
#[test]
fn verdicts_are_those_of_the_dense_inverse() {
    for data in [correlated(4, &[12, 9, 5], 6), correlated(5, &[8, 7], 30)] {
        let dense = Dense::of(&data);
        let rho = dense.oas();
        let mut job = data.job();
        let report = job.fit(&FitOptions::default()).unwrap();
        // (S + λI)⁻¹ is (1 - ρ) / (N - C) times the inverse of the shrunk covariance.
        let scale = (1.0 - rho) / dense.freedom / report.temperature;
        for row in &correlated(6, &[60], data.dim()).rows {
            let scores = dense.discriminants(rho, &wide(row));
            let best = scores.iter().copied().fold(f64::MIN, f64::max);
            let exps: Vec<f64> = scores.iter().map(|s| ((s - best) * scale).exp()).collect();
            let sum: f64 = exps.iter().sum();
            let want: Vec<f64> = exps.iter().map(|e| e / sum).collect();
            let verdict = job.inspect(row).unwrap();
            let got: Vec<f64> = verdict.scores.iter().map(|s| f64::from(*s)).collect();
            assert!(difference(&got, &want) < 1e-5, "{got:?} {want:?}");
        }
    }
}

/// Independent features of one variance, many more than samples: the covariance says nothing, and the head is the nearest mean.
#[test]
fn alike_features_are_shrunk_to_the_nearest_mean() {
    let data = Data::clusters(7, &[5, 4], 2000, 0.3);
    let support = data.support();
    let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
    // ρ / (1 - ρ) from λ, the trace being that of 9 squared distances over 7 degrees of freedom.
    let odds = problem.shrinkage() * 2000.0 / (problem.unit() * 9.0);
    assert!(odds / (1.0 + odds) > 0.95, "{odds}");
    let (head, nearest) = (
        problem.solve(problem.shrinkage()),
        problem.solve(1e9 * problem.unit()),
    );
    let sides = Data::clusters(9, &[200], 2000, 0.1).rows;
    let first = |scores: Vec<f64>| scores[0] > scores[1];
    let agree = sides
        .iter()
        .filter(|row| first(head.scores(row)) == first(nearest.scores(row)))
        .count();
    assert!(agree >= 195, "{agree} of 200");
}

#[test]
fn one_sample_a_class_has_no_covariance() {
    let data = Data::clusters(8, &[1, 1, 1], 4, 1.0);
    let support = data.support();
    let problem = DiscriminantProblem::in_sample_space(&support).unwrap();
    assert_eq!(problem.shrinkage(), problem.unit());
}

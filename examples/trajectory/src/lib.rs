//! A point mass under gravity and drag, in metres and seconds.

/// Standard gravity, m/s².
const GRAVITY: f64 = 9.80665;
/// Speed of sound in the ICAO standard atmosphere at sea level, m/s.
const SOUND: f64 = 340.294;
/// Density of that air, kg/m³.
const AIR_DENSITY: f64 = 1.225;
/// A ballistic coefficient is given in lb/in²; the same in kg/m².
const KG_PER_M2: f64 = 703.06958;
/// Drag coefficients of the G1 standard projectile at some Mach numbers.
const G1: [(f64, f64); 14] = [
    (0.0, 0.2629),
    (0.5, 0.2032),
    (0.7, 0.2165),
    (0.8, 0.2546),
    (0.9, 0.3415),
    (1.0, 0.4805),
    (1.1, 0.5883),
    (1.2, 0.6393),
    (1.4, 0.6625),
    (1.6, 0.6474),
    (2.0, 0.5934),
    (2.5, 0.5397),
    (3.0, 0.5133),
    (5.0, 0.4988),
];
/// Seconds; halving it moves the drop at 1000 m by less than a millimetre.
const STEP: f64 = 0.0005;

/// What leaves the muzzle, level with the line of the bore.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    /// m/s
    pub velocity: f64,
    /// G1 ballistic coefficient, lb/in²
    pub coefficient: f64,
}

/// The bullet at one distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub range: f64,
    pub drop: f64,
    pub velocity: f64,
    pub time: f64,
}

/// Return the bullet at 0, `step`, 2 `step` … up to `range`; fewer points if it stops before.
pub fn trajectory(shot: Shot, range: f64, step: f64) -> Vec<Point> {
    let mut state = State {
        x: 0.0,
        y: 0.0,
        vx: shot.velocity,
        vy: 0.0,
    };
    let mut points = vec![state.at(0.0, 0.0)];
    let mut time = 0.0;
    while points.len() as f64 * step <= range + 1e-9 && state.vx > 1.0 {
        let next = state.advance(shot.coefficient);
        let wanted = points.len() as f64 * step;
        if next.x >= wanted {
            let part = (wanted - state.x) / (next.x - state.x);
            points.push(state.towards(next, part).at(wanted, time + part * STEP));
        } else {
            state = next;
            time += STEP;
        }
    }
    points
}

#[derive(Debug, Clone, Copy)]
struct State {
    x: f64,
    y: f64,
    vx: f64,
    vy: f64,
}

impl State {
    /// One step of the midpoint method.
    fn advance(self, coefficient: f64) -> State {
        let half = self.moved(self, coefficient, STEP / 2.0);
        self.moved(half, coefficient, STEP)
    }

    fn moved(self, slope: State, coefficient: f64, step: f64) -> State {
        let speed = slope.vx.hypot(slope.vy);
        let slowing = deceleration(speed, coefficient) / speed;
        State {
            x: self.x + slope.vx * step,
            y: self.y + slope.vy * step,
            vx: self.vx - slowing * slope.vx * step,
            vy: self.vy - (slowing * slope.vy + GRAVITY) * step,
        }
    }

    fn towards(self, next: State, part: f64) -> State {
        let between = |from: f64, to: f64| from + (to - from) * part;
        State {
            x: between(self.x, next.x),
            y: between(self.y, next.y),
            vx: between(self.vx, next.vx),
            vy: between(self.vy, next.vy),
        }
    }

    fn at(self, range: f64, time: f64) -> Point {
        Point {
            range,
            drop: 0.0 - self.y,
            velocity: self.vx.hypot(self.vy),
            time,
        }
    }
}

/// Return what drag takes from this speed, m/s².
fn deceleration(speed: f64, coefficient: f64) -> f64 {
    let area_per_mass = std::f64::consts::PI / 4.0 / (coefficient * KG_PER_M2);
    0.5 * AIR_DENSITY * speed * speed * drag_coefficient(speed / SOUND) * area_per_mass
}

fn drag_coefficient(mach: f64) -> f64 {
    let above = G1
        .iter()
        .position(|&(m, _)| m >= mach)
        .unwrap_or(G1.len() - 1)
        .max(1);
    let ((m0, c0), (m1, c1)) = (G1[above - 1], G1[above]);
    let part = ((mach - m0) / (m1 - m0)).min(1.0);
    c0 + (c1 - c0) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOT: Shot = Shot {
        velocity: 800.0,
        coefficient: 0.45,
    };

    #[test]
    fn it_falls_as_in_a_vacuum_when_drag_is_negligible() {
        let last = *trajectory(
            Shot {
                coefficient: 1e9,
                ..SHOT
            },
            400.0,
            100.0,
        )
        .last()
        .unwrap();
        assert!((last.time - 0.5).abs() < 1e-6, "{last:?}");
        assert!((last.drop - GRAVITY * 0.125).abs() < 1e-5, "{last:?}");
    }

    #[test]
    fn every_step_is_lower_slower_and_later() {
        let points = trajectory(SHOT, 1000.0, 100.0);
        assert_eq!(points.len(), 11);
        for pair in points.windows(2) {
            assert!(pair[1].drop > pair[0].drop, "{pair:?}");
            assert!(pair[1].velocity < pair[0].velocity, "{pair:?}");
            assert!(pair[1].time > pair[0].time, "{pair:?}");
        }
    }

    #[test]
    fn a_higher_coefficient_keeps_more_speed() {
        let slow = *trajectory(SHOT, 500.0, 100.0).last().unwrap();
        let fast = *trajectory(
            Shot {
                coefficient: 0.9,
                ..SHOT
            },
            500.0,
            100.0,
        )
        .last()
        .unwrap();
        assert!(fast.velocity > slow.velocity && fast.drop < slow.drop);
    }

    #[test]
    fn drag_is_interpolated_and_ends_with_the_table() {
        assert!((drag_coefficient(0.0) - 0.2629).abs() < 1e-12);
        assert!((drag_coefficient(0.6) - 0.20985).abs() < 1e-12);
        assert!((drag_coefficient(9.0) - 0.4988).abs() < 1e-12);
    }

    #[test]
    fn a_bullet_that_stops_ends_the_table() {
        let points = trajectory(
            Shot {
                velocity: 50.0,
                coefficient: 0.001,
            },
            1e6,
            1.0,
        );
        assert!(points.len() < 1000);
    }
}

//! The life of a pod's containers: started in order, watched, ended in order. One thread waits for whatever
//! happens next; nothing is polled.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::container::{ContainerError, Surroundings, program, view};
use crate::detached::{Notice, redirect_to};
use crate::directory::Runner;
use crate::launch::{Entry, Launch, LaunchError, c_string};
use crate::manifest::Container;
use crate::record::Record;
use crate::run::{RunError, record};
use crate::sandbox::{Sandbox, open_process};
use crate::signals::Stop;

/// A pod whose sandbox is made.
pub(crate) struct Life<'a> {
    around: Surroundings<'a>,
    sandbox: &'a Sandbox,
    stop: &'a Stop,
    /// None once it has been told.
    pause_end: Option<OwnedFd>,
    log: Option<File>,
    record: Record,
    running: Vec<Running>,
    /// The exit code of the first container that failed.
    failure: u8,
}

/// A container that runs.
struct Running {
    name: String,
    role: Role,
    child: Child,
    end: OwnedFd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Waited for before the next one starts.
    Init,
    /// An init container that stays.
    Sidecar,
    Main,
}

/// What happened next.
enum Happening {
    Ended(Ended),
    Stop,
    PauseGone,
    /// The time to wait is over.
    Late,
}

struct Ended {
    name: String,
    role: Role,
    status: ExitStatus,
}

impl<'a> Life<'a> {
    pub(crate) fn new(
        around: Surroundings<'a>,
        sandbox: &'a Sandbox,
        stop: &'a Stop,
        log: Option<File>,
    ) -> Result<Self, RunError> {
        let record = record(around.pod, sandbox);
        let pause_end = Some(sandbox.pause_end()?);
        let life = Self { around, sandbox, stop, pause_end, log, record, running: Vec::new(), failure: 0 };
        life.write()?;
        Ok(life)
    }

    /// Until the last container has ended.
    pub(crate) fn live(mut self, notice: Option<Notice>) -> Result<u8, RunError> {
        let outcome = self.start_all(notice).and_then(|asked| if asked { Ok(0) } else { self.watch() });
        let ended = self.end();
        let code = outcome?;
        ended?;
        Ok(code)
    }

    /// True if the pod was asked to end before it was up.
    fn start_all(&mut self, notice: Option<Notice>) -> Result<bool, RunError> {
        let pod = self.around.pod;
        for container in &pod.work.init_containers {
            let role = if container.stays() { Role::Sidecar } else { Role::Init };
            self.start(container, role)?;
            if role == Role::Init && self.wait_for_init()? {
                return Ok(true);
            }
        }
        for container in &pod.work.containers {
            self.start(container, Role::Main)?;
        }
        self.record.ready = true;
        self.write()?;
        if let Some(notice) = notice {
            notice.give()?;
            if let Some(log) = &self.log {
                redirect_to(log)?;
            }
        }
        Ok(false)
    }

    /// True if the pod was asked to end meanwhile.
    fn wait_for_init(&mut self) -> Result<bool, RunError> {
        loop {
            match self.next(None)? {
                Happening::Ended(Ended { name, role: Role::Init, status }) => {
                    if status.success() {
                        return Ok(false);
                    }
                    return Err(RunError::Init {
                        pod: self.around.pod.id(),
                        container: name,
                        end: told(status),
                    });
                }
                Happening::Ended(ended) => tell(&ended),
                Happening::Stop => return Ok(true),
                Happening::PauseGone => return Err(RunError::Pause(self.around.pod.id())),
                Happening::Late => {}
            }
        }
    }

    fn start(&mut self, container: &Container, role: Role) -> Result<(), RunError> {
        let started = self.launch(container).map_err(|source| RunError::Container {
            pod: self.around.pod.id(),
            container: container.name.clone(),
            source: Box::new(source),
        });
        let child = started?;
        let end = open_process(child.id())?;
        self.running.push(Running { name: container.name.clone(), role, child, end });
        self.write()
    }

    fn launch(&self, container: &Container) -> Result<Child, ContainerError> {
        let (command, environment) = program(&self.around, container)?;
        let entry = self.sandbox.entry().map_err(|error| {
            ContainerError::Launch(LaunchError::new("joining the pod's cgroup", io::Error::other(error)))
        })?;
        let directory = container.working_dir.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let stream = || match &self.log {
            Some(log) => log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
            None => Stdio::inherit(),
        };
        let launch = Launch {
            command,
            environment,
            entry: Entry {
                view: Some(view(&self.around, container)?),
                directory: Some(c_string(directory)?),
                ..entry
            },
            streams: [Stdio::null(), stream(), stream()],
        };
        Ok(self.sandbox.start(launch)?)
    }

    /// Until no main container is left; a pod without any lives until it is asked to end.
    fn watch(&mut self) -> Result<u8, RunError> {
        let has_main = !self.around.pod.work.containers.is_empty();
        while !has_main || self.running.iter().any(|running| running.role == Role::Main) {
            match self.next(None)? {
                Happening::Ended(ended) => {
                    tell(&ended);
                    self.record.ready = false;
                    self.write()?;
                }
                Happening::Stop => return Ok(0),
                Happening::PauseGone => return Err(RunError::Pause(self.around.pod.id())),
                Happening::Late => {}
            }
        }
        Ok(self.failure)
    }

    /// Main containers are asked first; those that stay beside them go last, in reverse order (KEP-753).
    fn end(&mut self) -> Result<(), RunError> {
        self.record.terminating = true;
        self.write()?;
        let grace = Duration::from_secs(self.around.pod.work.termination_grace_period_seconds);
        let deadline = Instant::now() + grace;
        self.ask(|role| role != Role::Sidecar, deadline)?;
        while let Some(name) = self.last_sidecar() {
            self.ask_one(&name, deadline)?;
        }
        Ok(())
    }

    fn last_sidecar(&self) -> Option<String> {
        let last = self.running.iter().rev().find(|running| running.role == Role::Sidecar);
        last.map(|running| running.name.clone())
    }

    fn ask_one(&mut self, name: &str, deadline: Instant) -> Result<(), RunError> {
        for running in self.running.iter().filter(|running| running.name == name) {
            running.signal(Signal::TERM);
        }
        let is_there = |life: &Self| life.running.iter().any(|running| running.name == name);
        self.wait_while(is_there, deadline)?;
        self.running.retain_mut(|running| running.name != name || !running.kill());
        Ok(())
    }

    fn ask(&mut self, chosen: impl Fn(Role) -> bool, deadline: Instant) -> Result<(), RunError> {
        for running in self.running.iter().filter(|running| chosen(running.role)) {
            running.signal(Signal::TERM);
        }
        let is_there = |life: &Self| life.running.iter().any(|running| chosen(running.role));
        self.wait_while(is_there, deadline)?;
        self.running.retain_mut(|running| !chosen(running.role) || !running.kill());
        Ok(())
    }

    /// Until the condition ends, the deadline is over, or somebody asks a second time.
    fn wait_while(&mut self, holds: impl Fn(&Self) -> bool, deadline: Instant) -> Result<(), RunError> {
        while holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(Some(left))? {
                Happening::Ended(ended) => tell(&ended),
                Happening::Stop | Happening::Late => return Ok(()),
                // The namespaces are held by the runner as well.
                Happening::PauseGone => {}
            }
        }
        Ok(())
    }

    /// Waits for the next thing to happen, at most for `limit`.
    fn next(&mut self, limit: Option<Duration>) -> Result<Happening, RunError> {
        let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
        loop {
            let mut files = vec![PollFd::new(self.stop, PollFlags::IN)];
            files.extend(self.running.iter().map(|running| PollFd::new(&running.end, PollFlags::IN)));
            let pause = files.len();
            files.extend(self.pause_end.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
            match poll(&mut files, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(0) => return Ok(Happening::Late),
                Ok(_) => {}
            }
            let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
            if ready[0] && self.stop.take().is_some() {
                return Ok(Happening::Stop);
            }
            if let Some(index) = ready[1..=self.running.len()].iter().position(|ready| *ready) {
                return Ok(Happening::Ended(self.reap(index)?));
            }
            if ready.get(pause) == Some(&true) {
                self.pause_end = None;
                return Ok(Happening::PauseGone);
            }
        }
    }

    fn reap(&mut self, index: usize) -> io::Result<Ended> {
        let mut running = self.running.remove(index);
        let status = running.child.wait()?;
        if self.failure == 0 && running.role == Role::Main && !self.record.terminating {
            self.failure = code(status);
        }
        Ok(Ended { name: running.name, role: running.role, status })
    }

    fn write(&self) -> Result<(), RunError> {
        let settings = self.around.settings;
        let staying = self.running.iter().filter(|running| running.role != Role::Init);
        // Main containers first: `exec` takes the first one.
        let mut containers: Vec<_> =
            staying.map(|running| (running.name.clone(), running.process())).collect();
        let sidecars = self.running.iter().filter(|running| running.role == Role::Sidecar).count();
        containers.rotate_left(sidecars);
        self.around.directory.write_runner(&Runner {
            runner: rustix::process::getpid().as_raw_nonzero().get(),
            cgroup: settings.cgroup.clone(),
            bpf_dir: settings.bpf_dir.clone(),
            grace_seconds: self.around.pod.work.termination_grace_period_seconds,
            shares_processes: self.around.pod.work.share_process_namespace,
            containers,
        })?;
        Ok(self.around.directory.write_record(&self.record)?)
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.running.retain_mut(|running| !running.kill());
    }
}

impl Running {
    fn process(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// The process is ours and not waited for yet, so the number is still its own.
    fn signal(&self, signal: Signal) {
        if let Some(process) = Pid::from_raw(self.process()) {
            let _ = kill_process(process, signal);
        }
    }

    /// True when it is gone.
    fn kill(&mut self) -> bool {
        let _ = self.child.kill();
        self.child.wait().is_ok()
    }
}

fn tell(ended: &Ended) {
    tracing::info!(container = ended.name, end = told(ended.status), "a container has ended");
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}

/// As a shell reports it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

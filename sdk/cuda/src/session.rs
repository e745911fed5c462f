//! A GPU's context with one stream: memory in the order of the stream, work recorded once and played back.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use ssl_edge_plugin::Refusal;
use ssl_edge_plugin::guest::{Failure, GuestDevice};

use crate::driver::{
    CAPTURE_THREAD_LOCAL, COMPUTE_CAPABILITY, Driver, EVENT_FLAGS, Handle, MEMORY_POOLS_SUPPORTED,
    POOL_RELEASE_THRESHOLD, STREAM_NON_BLOCKING, driver,
};

/// The oldest GPUs that there is code for.
pub(crate) const OLDEST: [u32; 2] = [8, 0];

/// One GPU, and a stream on it.
pub(crate) struct Session {
    pub(crate) driver: &'static Driver,
    device: c_int,
    context: Handle,
    pub(crate) stream: Handle,
    /// Told when the stream has come to it; waiting for it sleeps.
    done: Handle,
}

// SAFETY: contexts, streams and events may be used by any thread that made the context its own; `enter` does.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

/// The session's context is this thread's until it is dropped; whatever was before comes back.
pub(crate) struct Entered<'a>(&'a Driver);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: the context that `enter` pushed is on top.
        unsafe { (self.0.pop_context)(&raw mut context) };
    }
}

/// What the driver says of a GPU.
///
/// # Errors
/// There is no driver, or no GPU of this number.
pub(crate) fn describe(number: u32) -> Result<GuestDevice, Failure> {
    let driver = driver()?;
    let device = find(driver, number)?;
    let mut name = [0 as c_char; 256];
    let len = name.len() as c_int;
    // SAFETY: the room is as large as it says.
    let code = unsafe { (driver.device_name)(name.as_mut_ptr(), len, device) };
    driver.check("reading a GPU's name", code)?;
    name[255] = 0;
    let mut memory = 0;
    // SAFETY: the number can be written.
    let code = unsafe { (driver.device_memory)(&raw mut memory, device) };
    driver.check("reading a GPU's memory", code)?;
    // SAFETY: it ends with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(GuestDevice {
        name: name.to_string_lossy().into_owned(),
        version: capability(driver, device)?,
        memory: memory as u64,
    })
}

fn find(driver: &Driver, number: u32) -> Result<c_int, Failure> {
    let count = driver.count()?;
    if number >= count {
        let reason = match count {
            1 => format!("there is no GPU {number}: the driver sees one, number 0"),
            n => format!(
                "there is no GPU {number}: the driver sees {n}, 0 to {}",
                n - 1
            ),
        };
        return Err(Failure::new(Refusal::NoDevice, reason));
    }
    let mut device = 0;
    // SAFETY: the number can be written.
    let code = unsafe { (driver.device)(&raw mut device, number as c_int) };
    driver.check("finding a GPU", code)?;
    Ok(device)
}

fn attribute(driver: &Driver, device: c_int, which: c_int) -> Result<u32, Failure> {
    let mut value = 0;
    // SAFETY: the number can be written.
    let code = unsafe { (driver.device_attribute)(&raw mut value, which, device) };
    driver.check("reading an attribute of a GPU", code)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn capability(driver: &Driver, device: c_int) -> Result<[u32; 2], Failure> {
    let [major, minor] = COMPUTE_CAPABILITY;
    Ok([
        attribute(driver, device, major)?,
        attribute(driver, device, minor)?,
    ])
}

impl Session {
    /// Opens GPU `number`.
    ///
    /// # Errors
    /// There is no driver or no such GPU, it is too old, or it fails.
    pub(crate) fn open(number: u32) -> Result<Arc<Self>, Failure> {
        let driver = driver()?;
        let device = find(driver, number)?;
        let version = capability(driver, device)?;
        if version < OLDEST {
            let [major, minor] = version;
            let reason = format!(
                "GPU {number} has compute capability {major}.{minor}, and {}.{} or later is needed; choose another GPU or engine",
                OLDEST[0], OLDEST[1]
            );
            return Err(Failure::new(Refusal::OldDevice, reason));
        }
        if attribute(driver, device, MEMORY_POOLS_SUPPORTED)? == 0 {
            let reason = format!(
                "GPU {number} has no memory pools under this driver; install a newer driver"
            );
            return Err(Failure::new(Refusal::OldDriver, reason));
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer can be written, the device exists.
        let code = unsafe { (driver.retain_context)(&raw mut context, device) };
        driver.check("starting a context on the GPU", code)?;
        let mut session = Self {
            driver,
            device,
            context,
            stream: std::ptr::null_mut(),
            done: std::ptr::null_mut(),
        };
        session.start()?;
        Ok(Arc::new(session))
    }

    fn start(&mut self) -> Result<(), Failure> {
        let driver = self.driver;
        let (mut stream, mut done) = (std::ptr::null_mut(), std::ptr::null_mut());
        let _entered = self.enter()?;
        // SAFETY: the pointer can be written.
        let code = unsafe { (driver.create_stream)(&raw mut stream, STREAM_NON_BLOCKING) };
        driver.check("making a stream", code)?;
        // SAFETY: as above.
        let code = unsafe { (driver.create_event)(&raw mut done, EVENT_FLAGS) };
        let made = driver.check("making an event", code);
        drop(_entered);
        (self.stream, self.done) = (stream, done);
        made?;
        self.keep_freed_memory()
    }

    /// Freed memory stays with the process, where the driver's default gives it back to the system at every synchronisation.
    fn keep_freed_memory(&self) -> Result<(), Failure> {
        let (mut pool, mut threshold) = (std::ptr::null_mut(), u64::MAX);
        // SAFETY: the pointer can be written.
        let code = unsafe { (self.driver.default_pool)(&raw mut pool, self.device) };
        self.driver.check("finding the memory pool", code)?;
        let value = (&raw mut threshold).cast::<c_void>();
        let set = self.driver.set_pool_attribute;
        // SAFETY: the pool is the device's own, and the attribute is a 64-bit number.
        let code = unsafe { set(pool, POOL_RELEASE_THRESHOLD, value) };
        self.driver.check("setting the memory pool", code)
    }

    /// Compute capability.
    pub(crate) fn version(&self) -> Result<[u32; 2], Failure> {
        capability(self.driver, self.device)
    }

    /// Makes the context this thread's.
    pub(crate) fn enter(&self) -> Result<Entered<'static>, Failure> {
        // SAFETY: the context is retained as long as the session lives.
        let code = unsafe { (self.driver.push_context)(self.context) };
        self.driver.check("entering the GPU's context", code)?;
        Ok(Entered(self.driver))
    }

    /// Waits, asleep, until all work is done.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        // SAFETY: event and stream live as long as the session.
        let code = unsafe { (self.driver.record_event)(self.done, self.stream) };
        self.driver.check("running on the GPU", code)?;
        // SAFETY: as above.
        let code = unsafe { (self.driver.wait_for_event)(self.done) };
        self.driver.check("running on the GPU", code)
    }

    /// Records what `work` asks for instead of doing it.
    pub(crate) fn record(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Graph, Failure> {
        let driver = self.driver;
        // SAFETY: the stream lives as long as the session.
        let code = unsafe { (driver.begin_capture)(self.stream, CAPTURE_THREAD_LOCAL) };
        driver.check("recording", code)?;
        let worked = work();
        let mut graph = std::ptr::null_mut();
        // SAFETY: as above; the pointer can be written. Also after a failure: the stream must leave its recording state.
        let code = unsafe { (driver.end_capture)(self.stream, &raw mut graph) };
        worked?;
        driver.check("recording", code)?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: the graph is complete, the pointer can be written.
        let code = unsafe { (driver.instantiate)(&raw mut instance, graph, 0) };
        // SAFETY: instances do not need the graph that they came from.
        unsafe { (driver.destroy_graph)(graph) };
        driver.check("making ready what was recorded", code)?;
        Ok(Graph {
            instance,
            session: self.clone(),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(_entered) = self.enter() {
            if !self.stream.is_null() {
                // SAFETY: whatever used the stream is gone; the work that is left is waited for.
                unsafe {
                    (self.driver.synchronize)(self.stream);
                    (self.driver.destroy_stream)(self.stream);
                }
            }
            if !self.done.is_null() {
                // SAFETY: as above.
                unsafe { (self.driver.destroy_event)(self.done) };
            }
        }
        // SAFETY: it was retained when the session was made.
        unsafe { (self.driver.release_context)(self.device) };
    }
}

/// Work that was recorded.
pub(crate) struct Graph {
    instance: Handle,
    session: Arc<Session>,
}

// SAFETY: as for the session.
unsafe impl Send for Graph {}

impl Graph {
    /// Plays it back.
    pub(crate) fn launch(&self) -> Result<(), Failure> {
        let driver = self.session.driver;
        // SAFETY: what the graph works on is kept by whoever keeps the graph.
        let code = unsafe { (driver.launch_graph)(self.instance, self.session.stream) };
        driver.check("running on the GPU", code)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(_entered) = self.session.enter() {
            // SAFETY: it was made by `record` and is used no more.
            unsafe { (self.session.driver.destroy_instance)(self.instance) };
        }
    }
}

/// Values in memory of the host that the GPU reads and writes directly.
pub(crate) struct Pinned {
    values: *mut f32,
    len: usize,
    session: Arc<Session>,
}

// SAFETY: the values are this one's alone.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(crate) fn new(session: &Arc<Session>, len: usize) -> Result<Self, Failure> {
        let mut values = std::ptr::null_mut();
        let bytes = len.max(1) * size_of::<f32>();
        // SAFETY: the pointer can be written.
        let code = unsafe { (session.driver.alloc_host)(&raw mut values, bytes, 0) };
        session
            .driver
            .check("reserving memory for transfers", code)?;
        let values = values.cast::<f32>();
        // SAFETY: the memory is as long; zeros are values.
        unsafe { std::ptr::write_bytes(values, 0, len) };
        Ok(Self {
            values,
            len,
            session: session.clone(),
        })
    }

    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: as many values were reserved and zeroed; callers wait for the GPU before they look.
        unsafe { std::slice::from_raw_parts(self.values, self.len) }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Ok(_entered) = self.session.enter() {
            // SAFETY: it was reserved by `new`; the GPU's work on it was waited for.
            unsafe { (self.session.driver.free_host)(self.values.cast()) };
        }
    }
}

// A device for tests, as torch's PrivateUse1, with memory that only its own copies can
// read. Operators run on the CPU, on copies; mixed devices raise as on CUDA. It counts
// kernels and synchronisations, and shows nothing of speed or of rounding on a GPU.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <map>
#include <mutex>
#include <set>

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::IValue;
using c10::Stream;
using at::IntArrayRef;
using OptionalDtype = std::optional<at::ScalarType>;
using OptionalLayout = std::optional<at::Layout>;
using OptionalFormat = std::optional<at::MemoryFormat>;

constexpr auto KEY = c10::DispatchKey::PrivateUse1;
const Device DEVICE(c10::DeviceType::PrivateUse1, 0);

// ------------------------------------------------------------------------- counters

// Whether the thread is inside an operator of the device, whose copies do not count.
static thread_local bool is_inside = false;

struct Inside {
  bool before = is_inside;
  Inside() { is_inside = true; }
  ~Inside() { is_inside = before; }
};

// Several threads count: autograd has one of its own per device.
static std::mutex count_lock;
static std::map<std::string, int64_t> kernels, synchronisations;
static bool is_forbidden = false;  // to synchronise
static bool is_warned_of = false;

static void launch(const std::string& name) {
  std::lock_guard<std::mutex> guard(count_lock);
  if (!is_inside) ++kernels[name];
}

static void synchronise(const std::string& name) {
  if (is_inside) return;
  {
    std::lock_guard<std::mutex> guard(count_lock);
    ++synchronisations[name];
  }
  TORCH_CHECK(!is_forbidden, "The host waits for ", DEVICE, " in ", name, ".");
  if (is_warned_of) TORCH_WARN("called a synchronizing operation of ", DEVICE);
}

// --------------------------------------------------------------------------- memory

// Added to the addresses of the device, which a CPU (x86-64 or ARM) cannot access.
constexpr uintptr_t HIDDEN = uintptr_t(1) << 60;

static void* to_hidden(void* address) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) | HIDDEN);
}

static void* to_real(const void* address) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) & ~HIDDEN);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n_bytes) override {
    if (n_bytes == 0) return {nullptr, nullptr, &free, DEVICE};
    void* address = malloc(n_bytes);
    TORCH_CHECK(address != nullptr, "out of memory: ", DEVICE, " cannot allocate ",
                n_bytes, " bytes");
    memset(address, 0xFF, n_bytes);  // floats that are read before written are NaN
    return {to_hidden(address), address, &free, DEVICE};
  }
  void copy_data(void* to, const void* from, size_t n_bytes) const override {
    memcpy(to_real(to), to_real(from), n_bytes);
  }
};
static Memory memory;

// Memory of the host from which copies to the device need not wait.
struct PinnedMemory final : c10::Allocator {
  static std::mutex lock;
  static std::set<const void*> addresses;
  static bool has(const void* address) {
    std::lock_guard<std::mutex> guard(lock);
    return addresses.count(address) > 0;
  }
  static void release(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    addresses.erase(address);
    free(address);
  }
  c10::DataPtr allocate(size_t n_bytes) override {
    std::lock_guard<std::mutex> guard(lock);
    void* address = malloc(n_bytes + 1);
    addresses.insert(address);
    return {address, address, &release, at::kCPU};
  }
  void copy_data(void* to, const void* from, size_t n_bytes) const override {
    memcpy(to, from, n_bytes);
  }
};
std::mutex PinnedMemory::lock;
std::set<const void*> PinnedMemory::addresses;
static PinnedMemory pinned_memory;

// The same values as a tensor of the CPU, without a copy.
static Tensor on_cpu(const Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  void* address = tensor.numel() ? to_real(tensor.const_data_ptr()) : nullptr;
  auto options = at::TensorOptions().dtype(tensor.dtype());
  return at::from_blob(address, tensor.sizes(), tensor.strides(), options);
}

static bool has_float64 = true;

static at::ScalarType checked(OptionalDtype dtype) {
  auto type = c10::dtype_or_default(dtype);
  TORCH_CHECK_TYPE(has_float64 || type != at::kDouble, DEVICE, " has no float64.");
  return type;
}

static Tensor empty(IntArrayRef size, OptionalDtype dtype, OptionalLayout,
                    std::optional<Device>, std::optional<bool>, OptionalFormat format) {
  c10::DispatchKeySet keys(KEY);
  return at::detail::empty_generic(size, &memory, keys, checked(dtype), format);
}

static Tensor empty_strided(IntArrayRef size, IntArrayRef stride, OptionalDtype dtype,
                            OptionalLayout, std::optional<Device>, std::optional<bool>) {
  c10::DispatchKeySet keys(KEY);
  auto type = checked(dtype);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, type);
}

static Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (from.device() == to.device()) {
    launch("copy_");
  } else if (to.is_cpu()) {
    synchronise("copy to the host");  // whether it blocks or not, if it is not pinned
  } else if (!non_blocking) {
    synchronise("copy from the host");
  }
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

static Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (!to.sizes().equals(from.sizes())) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

static at::Scalar item(const Tensor& self) {
  synchronise("item");
  return on_cpu(self).item();
}

static const Tensor& resize_(const Tensor& self, IntArrayRef size, OptionalFormat) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  size_t n_bytes = (impl->numel() + impl->storage_offset()) * impl->itemsize();
  auto storage = self.storage();
  if (impl->numel() && n_bytes > storage.nbytes()) {
    auto fresh = memory.allocate(n_bytes);
    memory.copy_data(fresh.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(n_bytes);
  }
  return self;
}

static Tensor& set_storage(Tensor& self, at::Storage storage, int64_t offset,
                           IntArrayRef size, IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset);
  if (stride.size() == size.size()) {
    impl->set_sizes_and_strides(size, stride);
  } else {
    impl->set_sizes_contiguous(size);
  }
  return self;
}

static Tensor& set_whole_storage(Tensor& self, at::Storage storage) {
  int64_t n = storage.nbytes() / self.dtype().itemsize();
  return set_storage(self, std::move(storage), 0, {n}, {});
}

static Tensor& set_tensor(Tensor& self, const Tensor& other) {
  return set_storage(self, other.storage(), other.storage_offset(), other.sizes(),
                     other.strides());
}

// -------------------------------------------------------------------- random numbers

struct Numbers final : c10::GeneratorImpl {
  at::Generator own = at::detail::createCPUGenerator();
  Numbers() : GeneratorImpl(DEVICE, c10::DispatchKeySet(KEY)) {}
  void set_current_seed(uint64_t seed) override { own.set_current_seed(seed); }
  uint64_t current_seed() const override { return own.current_seed(); }
  uint64_t seed() override { return own.seed(); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }

  // A state is longer than one of the CPU, so that neither takes the other's.
  static constexpr int64_t N_EXTRA = 16;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    auto extra = at::zeros({N_EXTRA}, at::kByte);
    return at::cat({extra, Tensor(own.get_state())}).getIntrusivePtr();
  }
  void set_state(const c10::TensorImpl& state) override {
    auto* impl = const_cast<c10::TensorImpl*>(&state);
    Tensor bytes(c10::intrusive_ptr<c10::TensorImpl>::reclaim_copy(impl));
    TORCH_CHECK(bytes.is_cpu(), "a state must be on the CPU");
    own.set_state(bytes.slice(0, N_EXTRA).clone());
  }
  Numbers* clone_impl() const override {
    auto* made = new Numbers();
    made->own = own.clone();
    return made;
  }
};

static at::Generator& default_numbers() {
  static auto made = at::make_generator<Numbers>();
  return made;
}

// That of the CPU would draw from the CPU's generator.
static std::tuple<Tensor, Tensor> dropout(const Tensor& input, double p,
                                          std::optional<bool> train) {
  launch("aten::native_dropout");
  Inside now;
  bool is_active = train.value_or(true);
  auto mask = at::empty_like(input, input.options().dtype(at::kBool));
  mask.bernoulli_(is_active ? 1 - p : 1.0);
  double scale = !is_active ? 1.0 : p < 1 ? 1 / (1 - p) : 0.0;
  return {input * mask * scale, mask};
}

// The schema of this operator does not say that it writes the running statistics.
using OptionalTensor = std::optional<Tensor>;
static std::tuple<Tensor, Tensor, Tensor> batch_norm(
    const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& mean, const OptionalTensor& var, bool training,
    double momentum, double eps) {
  if (!mean || !mean->defined()) {
    return at::_native_batch_norm_legit(input, weight, bias, training, momentum, eps);
  }
  Tensor own_mean = *mean, own_var = *var;
  return at::_native_batch_norm_legit(input, weight, bias, own_mean, own_var, training,
                                      momentum, eps);
}

// ------------------------------------------------------------------- hooks of torch

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1> {
  static Stream stream() { return Stream(Stream::DEFAULT, DEVICE); }
  Device exchangeDevice(Device) const override { return DEVICE; }
  Device getDevice() const override { return DEVICE; }
  Stream getStream(Device) const noexcept override { return stream(); }
  Stream exchangeStream(Stream) const noexcept override { return stream(); }
  void record(void**, const Stream&, const DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool isPinnedPtr(const void* data) const override { return PinnedMemory::has(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    return default_numbers();
  }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::make_generator<Numbers>();
  }
};

// ------------------------------------------------------------------------ operators

// Operators whose result has a shape that depends on values, which the host waits for.
static const std::set<std::string> OF_UNKNOWN_SHAPE{
    "aten::_unique",      "aten::_unique2",         "aten::bincount",
    "aten::equal",        "aten::masked_select",    "aten::nonzero",
    "aten::unique_dim",   "aten::unique_consecutive"};

static void check_device(const std::string& name, const Tensor& tensor, bool is_index) {
  // Kernels take single numbers from the host.
  bool is_taken = is_index || tensor.dim() == 0;
  TORCH_CHECK(!tensor.is_cpu() || is_taken,
              "Expected all tensors to be on the same device, but found ", DEVICE,
              " and cpu (", name, ", shape ", tensor.sizes(), ")");
}

// Indices on the host are copied; those of a mask are counted first, unless a single
// value is assigned, which needs no indices. Before `index`, torch itself does both.
static void synchronise_indices(const std::string& name, const Tensor& index,
                                bool is_assigned) {
  if (name == "aten::index") return;
  if (index.is_cpu()) synchronise("copy from the host");
  bool is_mask = index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
  if (is_mask && !is_assigned) synchronise(name + " by a mask");
}

static void check_arguments(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto& arguments = op.schema().arguments();
  const auto begin = stack->size() - arguments.size();
  bool is_indexing = name.rfind("aten::index", 0) == 0 || name == "aten::_index_put_impl_";
  bool is_assigned = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const IValue& value = (*stack)[begin + i];
    if (is_indexing && arguments[i].name() == "values" && value.isTensor()) {
      is_assigned = value.toTensor().numel() == 1;
    }
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    const IValue& value = (*stack)[begin + i];
    bool is_index = is_indexing && arguments[i].name() == "indices";
    std::vector<Tensor> tensors;
    if (value.isTensor()) {
      tensors.push_back(value.toTensor());
    } else if (value.isTensorList()) {
      tensors = value.toTensorVector();
    } else if (value.isOptionalTensorList()) {
      for (const std::optional<Tensor>& each : value.toOptionalTensorList()) {
        if (each) tensors.push_back(*each);
      }
    }
    for (const Tensor& tensor : tensors) {
      if (!tensor.defined()) continue;
      check_device(name, tensor, is_index);
      if (is_index) synchronise_indices(name, tensor, is_assigned);
    }
    bool is_counted = arguments[i].name() == "output_size" && value.isNone();
    if (name == "aten::repeat_interleave" && is_counted) synchronise(name);
  }
  if (OF_UNKNOWN_SHAPE.count(name)) synchronise(name);
}

// Exchange a generator of the device for the one of the CPU that it draws from.
static void use_own_numbers(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const auto begin = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() != "generator") continue;
    auto& value = (*stack)[begin + i];
    auto given = value.isNone() ? default_numbers() : value.toGenerator();
    TORCH_CHECK(given.device() == DEVICE, "Expected a generator of ", DEVICE,
                " but found one of ", given.device());
    value = static_cast<Numbers*>(given.unsafeGetGeneratorImpl())->own;
  }
}

static void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  launch(op.schema().name());
  if (!is_inside) check_arguments(op, stack);
  use_own_numbers(op, stack);
  Inside now;
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

// Sparse tensors of the device, as sparse tensors of the CPU, and back.
static Tensor moved(const Tensor& tensor, Device device) {
  if (!tensor.is_sparse()) return tensor.to(device);
  auto indices = tensor._indices().to(device), values = tensor._values().to(device);
  auto made = at::_sparse_coo_tensor_unsafe(indices, values, tensor.sizes());
  return made._coalesced_(tensor.is_coalesced());
}

static void run_sparse_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  launch(name);
  if (name == "aten::_coalesce") synchronise(name);  // counts the different indices
  Inside now;
  const auto& arguments = op.schema().arguments();
  const auto begin = stack->size() - arguments.size();
  std::vector<std::pair<Tensor, Tensor>> written;  // on the device, and on the CPU
  bool has_tensors = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = (*stack)[begin + i];
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    has_tensors = true;
    auto own = value.toTensor(), copied = moved(own, at::kCPU);
    if (arguments[i].alias_info() != nullptr) written.emplace_back(own, copied);
    value = copied;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(has_tensors, DEVICE, " does not have ", op.schema());
  op.callBoxed(stack);
  for (auto& [own, copied] : written) own.copy_(moved(copied, DEVICE));
  const auto& returns = op.schema().returns();
  for (size_t i = 0; i < returns.size(); ++i) {
    auto& value = (*stack)[stack->size() - returns.size() + i];
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    bool is_written = returns[i].alias_info() != nullptr && !written.empty();
    value = is_written ? written[0].first : moved(value.toTensor(), DEVICE);
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_sparse_on_cpu>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(baddbmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(binary_cross_entropy_with_logits, fp32)
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &item);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("native_batch_norm", &batch_norm);
  m.impl("native_dropout", &dropout);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &resize_);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  // Operators on lists of tensors are one kernel, as on CUDA. Elsewhere they are loops.
  for (const auto& each : c10::Dispatcher::singleton().getAllOpNames()) {
    if (each.name.rfind("aten::_foreach_", 0) != 0) continue;
    auto name = each.name.substr(6);
    if (!each.overload_name.empty()) name += "." + each.overload_name;
    m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  m.impl("empty.memory_format", &at::native::empty_sparse_symint);
  m.impl("empty_like", &at::native::empty_like_sparse_coo);
  m.impl("clone", &at::native::clone_sparse);
  m.impl("copy_sparse_to_sparse_", &at::native::copy_sparse_);
  m.impl("copy_", &at::native::copy_sparse_wrapper_);
  m.impl("zero_", &at::native::zero_sparse_);
  m.impl("resize_as_sparse_", &at::native::resize_as_sparse_);
  m.impl("_sparse_coo_tensor_with_dims_and_tensors",
         &at::native::new_with_dims_and_tensor_sparse_symint);
  m.impl("_sparse_coo_tensor_with_dims", &at::native::new_with_dims_sparse);
  m.impl("_indices", &at::native::_indices_sparse);
  m.impl("_values", &at::native::_values_sparse);
  m.impl("indices", &at::native::indices_sparse);
  m.impl("values", &at::native::values_sparse);
  m.impl("_nnz", &at::native::_nnz_sparse);
  m.impl("is_coalesced", &at::native::is_coalesced_sparse);
  m.impl("_coalesced_", &at::native::_coalesced_sparse_);
  m.impl("sparse_dim", &at::native::sparse_dim_sparse);
  m.impl("dense_dim", &at::native::dense_dim_sparse);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("install", [] {
    c10::SetAllocator(DEVICE.type(), &memory);
    at::RegisterPrivateUse1HooksInterface(new Hooks());
  });
  m.def("default_generator", [] { return default_numbers(); });
  m.def("generator_id", [](const at::Generator& generator) {
    return reinterpret_cast<uintptr_t>(generator.unsafeGetGeneratorImpl());
  });
  m.def("counts", [] {
    std::lock_guard<std::mutex> guard(count_lock);
    return std::make_pair(kernels, synchronisations);
  });
  m.def("forbid_synchronisation", [](bool forbidden) { is_forbidden = forbidden; });
  m.def("warn_of_synchronisation", [](bool warned) { is_warned_of = warned; });
  m.def("set_float64", [](bool present) { has_float64 = present; });
}

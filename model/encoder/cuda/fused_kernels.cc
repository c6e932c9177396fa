#include "model/encoder/cuda/fused_kernels.h"

#include <dlfcn.h>

#include <vector>

#include "absl/strings/str_cat.h"

namespace longembed::cuda {
namespace {

// The functions of NVRTC and of the CUDA driver that are used here, declared as in their documentation. All return 0
// for success. Handles are opaque pointers.
struct Nvrtc {
  int (*create)(void** program, const char* source, const char* name, int headers, const char* const* header_texts,
                const char* const* header_names);
  int (*compile)(void* program, int options, const char* const* option_texts);
  int (*log_size)(void* program, size_t* size);
  int (*log)(void* program, char* log);
  int (*code_size)(void* program, size_t* size);
  int (*code)(void* program, char* code);
  int (*destroy)(void** program);
};
struct Driver {
  int (*device_get)(int* device, int ordinal);
  int (*attribute)(int* value, int attribute, int device);
  int (*load)(void** module, const void* code);
  int (*function)(void** function, void* module, const char* name);
  int (*launch)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra);
};

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// Opens the first library that exists, and never closes it.
void* Open(std::initializer_list<const char*> names) {
  for (const char* const name : names) {
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
  }
  return nullptr;
}

// Returns NVRTC's functions, or null if NVRTC is not installed. libcaffe2_nvrtc.so belongs to LibTorch and loads the
// version of NVRTC that LibTorch was built with.
const Nvrtc* FindNvrtc() {
  static const std::unique_ptr<const Nvrtc> found = []() -> std::unique_ptr<const Nvrtc> {
    void* const library = Open({"libcaffe2_nvrtc.so", "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"});
    auto nvrtc = std::make_unique<Nvrtc>();
    const bool complete =
        Find(library, "nvrtcCreateProgram", nvrtc->create) && Find(library, "nvrtcCompileProgram", nvrtc->compile) &&
        Find(library, "nvrtcGetProgramLogSize", nvrtc->log_size) && Find(library, "nvrtcGetProgramLog", nvrtc->log) &&
        Find(library, "nvrtcGetCUBINSize", nvrtc->code_size) && Find(library, "nvrtcGetCUBIN", nvrtc->code) &&
        Find(library, "nvrtcDestroyProgram", nvrtc->destroy);
    return complete ? std::move(nvrtc) : nullptr;
  }();
  return found.get();
}

const Driver* FindDriver() {
  static const std::unique_ptr<const Driver> found = []() -> std::unique_ptr<const Driver> {
    void* const library = Open({"libcuda.so.1"});
    auto driver = std::make_unique<Driver>();
    const bool complete =
        Find(library, "cuDeviceGet", driver->device_get) && Find(library, "cuDeviceGetAttribute", driver->attribute) &&
        Find(library, "cuModuleLoadData", driver->load) && Find(library, "cuModuleGetFunction", driver->function) &&
        Find(library, "cuLaunchKernel", driver->launch);
    return complete ? std::move(driver) : nullptr;
  }();
  return found.get();
}

std::string LogOf(const Nvrtc& nvrtc, void* program) {
  size_t size = 0;
  nvrtc.log_size(program, &size);
  std::string log(size, '\0');
  if (size > 0) nvrtc.log(program, log.data());
  return log;
}

absl::StatusOr<std::string> ArchitectureOf(const Driver& driver, int ordinal) {
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
  int device = 0, major = 0, minor = 0;
  if (driver.device_get(&device, ordinal) != 0 || driver.attribute(&major, kMajor, device) != 0 ||
      driver.attribute(&minor, kMinor, device) != 0) {
    return absl::UnavailableError("the driver does not tell the GPU's architecture");
  }
  return absl::StrCat("sm_", major, minor);
}

}  // namespace

absl::StatusOr<std::string> CompileFusedKernels(ElementType element, const std::string& architecture) {
  const Nvrtc* const nvrtc = FindNvrtc();
  if (nvrtc == nullptr) return absl::UnavailableError("NVRTC cannot be loaded");
  const std::string source(FusedKernelsSource());
  void* program = nullptr;
  if (nvrtc->create(&program, source.c_str(), "fused_kernels.cu", 0, nullptr, nullptr) != 0) {
    return absl::InternalError("NVRTC cannot create a program");
  }
  const std::vector<std::string> options{absl::StrCat("--gpu-architecture=", architecture),
                                         absl::StrCat("-DELEMENT=", static_cast<int>(element)),
                                         absl::StrCat("-DBLOCK=", kBlock)};
  std::vector<const char*> texts;
  for (const std::string& option : options) texts.push_back(option.c_str());
  absl::StatusOr<std::string> code = "";
  if (nvrtc->compile(program, static_cast<int>(texts.size()), texts.data()) != 0) {
    code = absl::InternalError(absl::StrCat("NVRTC: ", LogOf(*nvrtc, program)));
  } else {
    size_t size = 0;
    nvrtc->code_size(program, &size);
    code->resize(size);
    nvrtc->code(program, code->data());
  }
  nvrtc->destroy(&program);
  return code;
}

absl::StatusOr<std::unique_ptr<FusedKernels>> FusedKernels::Load(int device, ElementType element) {
  const Driver* const driver = FindDriver();
  if (driver == nullptr) return absl::UnavailableError("the CUDA driver cannot be loaded");
  const absl::StatusOr<std::string> architecture = ArchitectureOf(*driver, device);
  if (!architecture.ok()) return architecture.status();
  const absl::StatusOr<std::string> code = CompileFusedKernels(element, *architecture);
  if (!code.ok()) return code.status();
  void* module = nullptr;
  if (driver->load(&module, code->data()) != 0) return absl::UnavailableError("the driver refuses the code");
  std::unique_ptr<FusedKernels> kernels(new FusedKernels);
  for (size_t i = 0; i < kKernelNames.size(); ++i) {
    if (driver->function(&kernels->functions_[i], module, kKernelNames[i]) != 0) {
      return absl::InternalError(absl::StrCat("the code has no kernel ", kKernelNames[i]));
    }
  }
  return kernels;
}

bool FusedKernels::Launch(Kernel kernel, int64_t blocks, void* stream, void** arguments) const {
  if (blocks == 0) return true;
  return FindDriver()->launch(functions_[static_cast<size_t>(kernel)], static_cast<unsigned>(blocks), 1, 1, kBlock, 1,
                              1, 0, stream, arguments, nullptr) == 0;
}

}  // namespace longembed::cuda

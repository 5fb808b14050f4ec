"""The papers whose experiments are here, and sentences about them that several experiments share."""

CONSTRAINED = "Alonso and Neftci 2021, arXiv 2104.15137"
DI = "Podlaski and Machens 2020, arXiv 2007.05112"
IL_THEORY = "Alonso et al. 2022, arXiv 2206.00164"
IPC = "Salvatori et al. 2024, arXiv 2212.00720"
MQ = "Alonso, Krichmar and Neftci 2024, arXiv 2305.13562"
NEUROMORPHIC = "arXiv 2212.14337"
OVQ = "Alonso, Figliolia and Millidge 2026, arXiv 2602.03922"
PAL = "Max et al. 2024, arXiv 2212.10249"
TIKI_TAKA = "Gokmen and Haensch 2020, arXiv 1909.07908"

NO_TABLES = "We could not read the paper's tables, so no number of it stands here."
JPEG = "The CIFAR-10 images may have been compressed on the way here: see the data's credit."

"""The papers behind the rules, as BibTeX."""

BIBTEX: dict[str, str] = {
    "vicinal": """\
@software{vicinal,
  title  = {vicinal: training neural networks by local learning},
  author = {{The vicinal authors}},
  year   = {2026},
  note   = {Version 0.1.0},
}""",
    "rumelhart1986": """\
@article{rumelhart1986,
  title   = {Learning representations by back-propagating errors},
  author  = {Rumelhart, David E. and Hinton, Geoffrey E. and Williams, Ronald J.},
  journal = {Nature},
  volume  = {323},
  pages   = {533--536},
  year    = {1986},
}""",
    "rao1999": """\
@article{rao1999,
  title   = {Predictive coding in the visual cortex: a functional interpretation of some extra-classical
             receptive-field effects},
  author  = {Rao, Rajesh P. N. and Ballard, Dana H.},
  journal = {Nature Neuroscience},
  volume  = {2},
  number  = {1},
  pages   = {79--87},
  year    = {1999},
}""",
    "whittington2017": """\
@article{whittington2017,
  title   = {An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local
             {Hebbian} Synaptic Plasticity},
  author  = {Whittington, James C. R. and Bogacz, Rafal},
  journal = {Neural Computation},
  volume  = {29},
  number  = {5},
  pages   = {1229--1262},
  year    = {2017},
}""",
    "alonso2022": """\
@inproceedings{alonso2022,
  title     = {A Theoretical Framework for Inference Learning},
  author    = {Alonso, Nick and Millidge, Beren and Krichmar, Jeffrey and Neftci, Emre O.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022},
  note      = {arXiv:2206.00164},
}""",
    "kingma2015": """\
@inproceedings{kingma2015,
  title     = {Adam: A Method for Stochastic Optimization},
  author    = {Kingma, Diederik P. and Ba, Jimmy},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
  note      = {arXiv:1412.6980},
}""",
}
"""BibTeX entries by key."""


def bibtex(*keys: str) -> str:
    """The entries of these keys, one after another.

    Example:
        >>> print(bibtex("rumelhart1986").splitlines()[0])
        @article{rumelhart1986,
    """
    return "\n\n".join(BIBTEX[key] for key in keys)

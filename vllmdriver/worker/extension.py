"""The mix-in that vLLM adds to its own worker class; all that runs beside the model runner.

vLLM refuses an extension whose attribute names it has already, hence the prefix.
"""

import contents
import serving_facts
from session import Session

contents.fill_dummy_weights_on_load()


class Extension:
    def lsp_prepare(self, spec):
        self.__dict__["_lsp"] = Session(self, spec)
        return self._lsp.prepare()

    def lsp_prepare_serving(self, spec):
        """Contents and facts of an engine that serves; nothing is hooked."""
        return serving_facts.prepare(self, spec)

    def lsp_batches(self):
        """Whether shots are best measured many at a time."""
        return self._lsp.batches

    def lsp_measure(self, shots, options):
        return self._lsp.measure(shots, options)
